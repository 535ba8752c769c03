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
