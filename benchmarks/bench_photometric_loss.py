"""photometric_loss beside the same loss by torch's convolutions: 11 x 11, as 3D Gaussian splatting code has it, and separable;
and by pytorch-msssim where it is installed (pip install pytorch-msssim)."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from benchmarks.devices import devices, moved, timed
from gafcore import photometric_loss
from tests.cases.images import ImageCase
from tests.reference import photometric_loss as reference

SIZES = [(256, 256), (512, 512), (802, 550)]
sizes = pytest.mark.parametrize("size", SIZES, ids=[f"{h}x{w}" for h, w in SIZES])


def separable(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Ten convolutions with eleven taps instead of five with 121."""
    x, y = (z.permute(2, 0, 1)[:, None] for z in (image, target))
    taps = reference.window(image.dtype).to(image.device).sum(0)

    def mean(z: Tensor) -> Tensor:
        return conv2d(conv2d(z, taps[None, None, None, :], padding=(0, 5)), taps[None, None, :, None], padding=(5, 0))

    mx, my = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (var_x + var_y + c2))
    return (image - target).abs().mean(), ssim.mean()


def pytorch_msssim(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The package of that name (valid instead of zero padding: its values differ at the rim)."""
    from pytorch_msssim import ssim

    x, y = (z.permute(0, 3, 1, 2) if z.dim() == 4 else z.permute(2, 0, 1)[None] for z in (image, target))
    return (image - target).abs().mean(), ssim(x, y, data_range=1.0)


OPS = {"gafcore": photometric_loss, "torch-11x11": reference.photometric_loss, "torch-separable": separable}
ROUNDS = {"gafcore": 30, "torch-11x11": 3, "torch-separable": 10, "pytorch-msssim": 10}
if importlib.util.find_spec("pytorch_msssim"):
    OPS["pytorch-msssim"] = pytorch_msssim
ops = pytest.mark.parametrize("op", OPS)


@sizes
@ops
@devices
def test_forward(benchmark, device, size, op):
    image, target, _ = moved(ImageCase("", (*size, 3)).inputs(torch.float32), device)
    timed(benchmark, device, OPS[op], image, target, rounds=ROUNDS[op])


@sizes
@ops
@devices
def test_forward_backward(benchmark, device, size, op):
    image, target, _ = moved(ImageCase("", (*size, 3)).inputs(torch.float32), device)
    image.requires_grad_()

    def step():
        l1, ssim = OPS[op](image, target)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        image.grad = None

    timed(benchmark, device, step, rounds=ROUNDS[op])


@devices
def test_forward_backward_masked(benchmark, device):
    image, target, mask = moved(ImageCase("", (512, 512, 3), masked=True).inputs(torch.float32), device)
    image.requires_grad_()

    def step():
        sum(photometric_loss(image, target, mask)).backward()
        image.grad = None

    timed(benchmark, device, step, rounds=20, warmup_rounds=3)
