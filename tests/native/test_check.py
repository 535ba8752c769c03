from __future__ import annotations

import numpy as np
import pytest
import torch

from gafcore.native import check


def test_sizes_are_bound_and_compared():
    sizes = check.tensor("means", torch.zeros(4, 3), ("N", 3))
    assert sizes == {"N": 4}
    with pytest.raises(ValueError, match=r"quats must be \[N, 4\] float32 with N = 4, got \(5, 4\) float32"):
        check.tensor("quats", torch.zeros(5, 4), ("N", 4), sizes, like=torch.zeros(1))


def test_messages_name_what_was_given():
    with pytest.raises(ValueError, match=r"means must be \[N, 3\] float32 or float64, got \(10, 4\) float32"):
        check.tensor("means", torch.zeros(10, 4), ("N", 3))
    with pytest.raises(ValueError, match=r"got \(10, 3\) int64"):
        check.tensor("means", torch.zeros(10, 3, dtype=torch.int64), ("N", 3))
    with pytest.raises(TypeError, match="means must be a tensor .* got list"):
        check.tensor("means", [1.0], ("N", 3))


def test_device_is_compared():
    check.tensor("faces", torch.zeros(2), ("F",), device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"faces must be on cpu like the other tensors, got \(2,\) float32 on meta; move it"):
        check.tensor("faces", torch.zeros(2, device="meta"), ("F",), device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"faces must be on meta like the other tensors, got \(2,\) float32 on cpu; move it"):
        check.tensor("faces", torch.zeros(2), ("F",), like=torch.zeros(2, device="meta"))


def test_integer():
    check.integer("width", 64)
    check.integer("width", np.int64(64))
    for value in (64.0, "64", None, True, torch.tensor(64)):
        with pytest.raises(TypeError, match="width must be an integer, got"):
            check.integer("width", value)


def test_index_range_gives_the_bad_number():
    check.index_range("faces", torch.tensor([0, 3]), 4, "vertices")
    check.index_range("faces", torch.tensor([], dtype=torch.int64), 0, "vertices")
    with pytest.raises(ValueError, match="faces must hold numbers of vertices from 0 to 2, got 3"):
        check.index_range("faces", torch.tensor([0, 3]), 3, "vertices")
    with pytest.raises(ValueError, match="got -1"):
        check.index_range("faces", torch.tensor([0, -1]), 3, "vertices")


def test_positive():
    with pytest.raises(ValueError, match=r"sigma must be > 0, got -1\.0"):
        check.positive("sigma", -1.0)


def test_indices():
    check.index_range("faces", torch.tensor([0, 2]), 3, "vertices")
    check.index_range("ids", torch.tensor([-1, 2]), 3, "faces", none=-1)
    check.index_range("faces", torch.zeros(0, dtype=torch.int64), 0, "vertices")
    with pytest.raises(ValueError, match="faces must hold numbers of vertices from 0 to 2, got 3"):
        check.index_range("faces", torch.tensor([0, 3]), 3, "vertices")
    with pytest.raises(ValueError, match="ids must hold -1 or numbers of faces from 0 to 2, got -2"):
        check.index_range("ids", torch.tensor([-2, 2]), 3, "faces", none=-1)


class _Elsewhere(torch.Tensor):
    """Says that it is on another device, without there being one."""

    where = torch.device("cuda:0")

    @property
    def device(self):
        return self.where


def test_devices_without_kernels(monkeypatch):
    x = torch.zeros(2, 3).as_subclass(_Elsewhere)
    monkeypatch.setattr(check, "has_cuda", lambda: False)
    with pytest.raises(ValueError, match="means is on cuda:0; this build of gafcore has none for CUDA"):
        check.tensor("means", x, ("N", 3))
    monkeypatch.setattr(check, "has_cuda", lambda: True)
    assert check.tensor("means", x, ("N", 3)) == {"N": 2}
    with pytest.raises(ValueError, match="means is float64 on cuda:0; on a GPU kernels are float32"):
        check.tensor("means", torch.zeros(2, 3, dtype=torch.float64).as_subclass(_Elsewhere), ("N", 3))
    monkeypatch.setattr(_Elsewhere, "where", torch.device("mps"))
    with pytest.raises(ValueError, match="means is on mps; gafcore has kernels for the CPU and for CUDA"):
        check.tensor("means", x, ("N", 3))


def test_a_range_on_a_gpu_is_read_once_and_again_after_a_change(monkeypatch):
    x = torch.tensor([0, 2]).as_subclass(_Elsewhere)
    reads = []
    read = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda t: reads.append(1) or read(t.as_subclass(torch.Tensor)))
    monkeypatch.setattr(check, "capturing", lambda _: False)
    for _ in range(3):
        check.index_range("faces", x, 3, "vertices")
    assert len(reads) == 1
    with pytest.raises(ValueError, match="got 2"):
        check.index_range("faces", x, 2, "vertices")  # of fewer things
    x[0] = 7
    with pytest.raises(ValueError, match="got 7"):
        check.index_range("faces", x, 3, "vertices")
    check.trust(x, 0, 8)
    check.index_range("faces", x, 8, "vertices")
    assert len(reads) == 3


def test_a_range_made_in_inference_mode_is_read_every_time_but_during_a_capture(monkeypatch):
    """It has no version by which a change could be noticed."""
    with torch.inference_mode():
        x = torch.tensor([0, 2]).as_subclass(_Elsewhere)
    monkeypatch.setattr(check, "capturing", lambda _: False)
    check.trust(x, 0, 3)
    for _ in range(2):
        check.index_range("faces", x, 3, "vertices")
    with torch.inference_mode():
        x[1] = 3
    with pytest.raises(ValueError, match="faces must hold numbers of vertices from 0 to 2, got 3"):
        check.index_range("faces", x, 3, "vertices")
    monkeypatch.setattr(check, "capturing", lambda _: True)
    check.index_range("faces", x, 3, "vertices")
