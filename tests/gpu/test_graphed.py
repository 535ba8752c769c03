"""The multi-view denoiser's passes as CUDA graphs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.diffusion.graphed import GraphedUNet
from gafcore.diffusion.unet import MultiViewUNet, ViewCondition
from tests.diffusion.conftest import SIZES
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]


def condition_of(model: MultiViewUNet, seed: int) -> ViewCondition:
    g = torch.Generator().manual_seed(seed)
    size = model.config.sample_size

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g).cuda()

    return ViewCondition(normal(1, 4, size, size), normal(1, model.config.clip_dim), normal(1, model.config.n_views, 4, size, size))


@pytest.mark.parametrize("mode", ["frame", "reference"])
@pytest.mark.parametrize("both", [False, True])
def test_replayed_passes_are_the_plain_ones(mode, both):
    torch.manual_seed(0)
    model = MultiViewUNet(**SIZES, input_mode=mode).eval().cuda()
    graphed = GraphedUNet(model)
    for seed, t in ((0, 801), (1, 17), (0, 500)):
        condition = condition_of(model, seed)
        noisy = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(9 + seed)).cuda()
        with torch.no_grad():
            want = model(noisy, torch.tensor(t).cuda(), condition, {}, both=both)
        got = graphed(noisy, torch.tensor(t).cuda(), condition, {}, both=both)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert len(graphed._graphs) == 1
