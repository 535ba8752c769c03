"""`gafcore ablate`: what its presets are."""

from __future__ import annotations

import torch

from gafcore.cli.ablate import PRESETS
from gafcore.fitting import FitConfig, PseudoConfig, PseudoTruths, fit
from tests.cases.ball import ball_capture
from tests.cases.small_prior import tiny_prior


def test_render_has_the_papers_settings():
    """A set at every iteration, as heavy as the picture, in one sum with it to the end (GAF, section 4.2)."""
    made = PRESETS["render"]
    assert (made.prior_start, made.prior_levels, made.refresh_every) == ("render", (0.02, 0.98), 1)
    assert (made.prior_weight, made.prior_yields, made.prior_fades, made.prior_until) == (1, 0, 1, 1)


def test_score_distillation_has_the_weight_of_the_documented_table():
    made = PRESETS["sds"]
    assert (made.prior_start, made.prior_weight, made.prior_yields, made.prior_fades) == ("sds", 60, 4, 0.5)
    assert PRESETS["regression"] == PseudoConfig() and PRESETS["none"] is None


def test_every_preset_fits():
    capture, results = ball_capture(), {}
    for name, config in PRESETS.items():
        prior = None if config is None else PseudoTruths(tiny_prior(), config)
        results[name] = fit(capture, FitConfig(iterations=3), prior=prior, progress=False).avatar.means
    assert all(bool(x.isfinite().all()) for x in results.values())
    assert sum(not torch.equal(x, results["none"]) for x in results.values()) == len(PRESETS) - 1
