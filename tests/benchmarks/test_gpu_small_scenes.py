from __future__ import annotations

import pytest

from benchmarks.gpu import small_scenes


@pytest.mark.parametrize("one", small_scenes.PASSES, ids=lambda one: one.__name__)
def test_every_pass_runs(one, monkeypatch):
    monkeypatch.setattr(small_scenes, "DEVICE", "cpu")
    monkeypatch.setattr(small_scenes, "replayed", lambda call: call)
    one()
