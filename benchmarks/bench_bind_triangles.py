"""bind_triangles beside the same equations in torch (rotation matrices, no quaternion out), float32."""

from __future__ import annotations

import pytest
import torch

from benchmarks.devices import devices, moved, timed
from gafcore import bind_triangles
from tests.cases.bindings import BindingCase
from tests.reference import bind_triangles as reference

OPS = {"gafcore": bind_triangles, "torch": reference.bind_triangles}
ROUNDS = {"gafcore": 20, "torch": 5}
ops = pytest.mark.parametrize("op", OPS)
counts = pytest.mark.parametrize("n_gaussians", [10_000, 50_000, 100_000])


def inputs(n_gaussians: int):
    return BindingCase("", 1, 10_000, n_gaussians).inputs(torch.float32)


@counts
@ops
@devices
def test_forward(benchmark, device, op, n_gaussians):
    timed(benchmark, device, OPS[op], *moved(inputs(n_gaussians), device), rounds=ROUNDS[op])


@counts
@ops
@devices
def test_forward_backward(benchmark, device, op, n_gaussians):
    args = tuple(x.requires_grad_() if x.is_floating_point() else x for x in moved(inputs(n_gaussians), device))

    def step():
        sum(x.sum() for x in OPS[op](*args)).backward()
        for x in args:
            x.grad = None

    timed(benchmark, device, step, rounds=ROUNDS[op])
