from __future__ import annotations

import pytest

from gafcore.errors import InputError
from gafcore.tracking import TrackConfig
from gafcore.tracking.config import SolverConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrackConfig, {"focal": -5.0}, "focal must be > 0 px, got -5"),
        (TrackConfig, {"focal": NAN}, "focal must be > 0 px, got nan"),
        (TrackConfig, {"max_frames": 0}, "max_frames must be at least 1, got 0"),
        (TrackConfig, {"min_confidence": 1.5}, r"min_confidence must be in 0\.\.1, got 1.5"),
        (TrackConfig, {"min_confidence": NAN}, r"min_confidence must be in 0\.\.1, got nan"),
        (SolverConfig, {"key_frames": 0}, "key_frames must be at least 1, got 0"),
        (SolverConfig, {"key_iterations": 0}, "key_iterations must be at least 1, got 0"),
        (SolverConfig, {"iterations": -1}, "iterations must be at least 1, got -1"),
        (SolverConfig, {"expression_sigma": 0.0}, "expression_sigma must be > 0, got 0; a small number"),
        (SolverConfig, {"data_weight": 0.0}, "data_weight must be > 0, got 0; a small number"),
        (SolverConfig, {"huber": NAN}, "huber must be a number, at least 0, got nan"),
    ],
)
def test_settings_are_checked(kind, values, message):
    with pytest.raises(InputError, match=message):
        kind(**values)


def test_a_detectors_expressions_may_count_for_nothing():
    assert SolverConfig(score_share=0.0).score_share == 0
