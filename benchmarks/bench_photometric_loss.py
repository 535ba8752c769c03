"""photometric_loss beside the same loss by torch's convolutions (five 11 x 11 depth-wise ones, as 3D Gaussian splatting code has it)."""

from __future__ import annotations

import pytest
import torch

from gafcore import photometric_loss
from tests.cases.images import ImageCase
from tests.reference import photometric_loss as reference

SIZES = [(256, 256), (512, 512), (802, 550)]
sizes = pytest.mark.parametrize("size", SIZES, ids=[f"{h}x{w}" for h, w in SIZES])
OPS = {"gafcore": photometric_loss, "torch-conv2d": reference.photometric_loss}
ROUNDS = {"gafcore": 30, "torch-conv2d": 3}
ops = pytest.mark.parametrize("op", OPS)


@sizes
@ops
def test_forward(benchmark, size, op):
    image, target, _ = ImageCase("", (*size, 3)).inputs(torch.float32)
    benchmark.pedantic(OPS[op], (image, target), rounds=ROUNDS[op], warmup_rounds=1)


@sizes
@ops
def test_forward_backward(benchmark, size, op):
    image, target, _ = ImageCase("", (*size, 3)).inputs(torch.float32)
    image.requires_grad_()

    def step():
        l1, ssim = OPS[op](image, target)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        image.grad = None

    benchmark.pedantic(step, rounds=ROUNDS[op], warmup_rounds=1)


def test_forward_backward_masked(benchmark):
    image, target, mask = ImageCase("", (512, 512, 3), masked=True).inputs(torch.float32)
    image.requires_grad_()

    def step():
        sum(photometric_loss(image, target, mask)).backward()
        image.grad = None

    benchmark.pedantic(step, rounds=20, warmup_rounds=3)
