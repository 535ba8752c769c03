"""Who decides between SDPA and Triton."""

from __future__ import annotations

import pytest
import torch

from gafcore.attention import Shape, choice, choose, use_backend

GPU_SHAPE = Shape(torch.device("cuda"), torch.bfloat16, 64, 4096, 4096, 1024, False)


@pytest.fixture(autouse=True)
def _undo(monkeypatch):
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    yield
    use_backend(None)


def _measured(monkeypatch, *rows):
    base = dict(dtype="bfloat16", head_dim=64, gradients=False, n_ref=1024)
    value = {"measured": {"device": "a card"}, "rows": [base | row for row in rows]}
    monkeypatch.setattr(choice, "table", lambda: value)


def test_shipped_table_names_the_faster_of_what_was_measured():
    rows = choice.table()["rows"]
    assert len(rows) == 10
    for row in rows:
        assert row["backend"] == min(("sdpa", "triton"), key=row["median_ms"].__getitem__)
    assert choose(GPU_SHAPE) == choice.Choice("sdpa", "measured on NVIDIA H200")
    few = Shape(torch.device("cuda"), torch.bfloat16, 64, 256, 256, 64, False)
    assert choose(few).backend == "triton"


def test_measured_rows_decide_for_shapes_near_them(monkeypatch):
    rows = (dict(n_queries=4096, n_keys=4096, backend="triton"), dict(n_queries=256, n_keys=256, n_ref=64, backend="sdpa"))
    _measured(monkeypatch, *rows)
    assert choose(GPU_SHAPE) == choice.Choice("triton", "measured on a card")
    near = Shape(torch.device("cuda"), torch.bfloat16, 64, 300, 300, 64, False)
    assert choose(near).backend == "sdpa" and "measured on" in choose(near).reason
    far = Shape(torch.device("cuda"), torch.bfloat16, 64, 65536, 65536, 1024, False)
    assert choose(far).reason == "not measured"


def test_rows_of_another_kind_do_not_count(monkeypatch):
    _measured(monkeypatch, dict(n_queries=4096, n_keys=4096, backend="triton"))
    for change in (dict(gradients=True), dict(n_ref=0), dict(head_dim=128), dict(dtype=torch.float16)):
        assert choose(Shape(**(vars(GPU_SHAPE) | change))).reason == "not measured"


def test_cpu_and_what_triton_cannot_do_go_to_sdpa(monkeypatch):
    _measured(monkeypatch, dict(n_queries=4096, n_keys=4096, backend="triton"))
    assert "not on cpu" in choose(Shape(**(vars(GPU_SHAPE) | dict(device=torch.device("cpu"))))).reason
    assert "160 channels" in choose(Shape(**(vars(GPU_SHAPE) | dict(head_dim=160)))).reason
    assert "float64" in choose(Shape(**(vars(GPU_SHAPE) | dict(dtype=torch.float64)))).reason


def test_overrides(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "triton")
    assert choose(GPU_SHAPE).backend == "triton"
    use_backend("sdpa")
    assert choose(GPU_SHAPE) == choice.Choice("sdpa", "use_backend")
    use_backend(None)
    monkeypatch.setenv(choice.VARIABLE, "flash")
    with pytest.raises(ValueError, match="GAFCORE_ATTENTION must be one of sdpa, triton, got 'flash'"):
        choose(GPU_SHAPE)
    with pytest.raises(ValueError, match="backend must be one of"):
        use_backend("flash")
