"""Tiny random models for the tests of the multi-view prior. They need the extra `diffusion`."""

from __future__ import annotations

import pytest
import torch

SIZES = dict(sample_size=8, block_out_channels=(32, 64), attention_levels=(True, False), layers_per_block=1, head_dim=16,
             cross_attention_dim=24, norm_num_groups=8, clip_dim=20, resampler_depth=1, resampler_heads=2, resampler_head_dim=8,
             n_image_tokens=3)  # fmt: skip


@pytest.fixture
def tiny_unet():
    """`tiny_unet(condition="pose", ...)`: a MultiViewUNet with random weights, also in the layers that start at zero."""
    unet = pytest.importorskip("gafcore.diffusion.unet", reason="the extra `diffusion` is not installed")

    def make(seed: int = 0, **changes):
        torch.manual_seed(seed)
        return unet.MultiViewUNet(**(SIZES | changes)).eval()

    return make


@pytest.fixture
def view_inputs():
    """`view_inputs(model, n_heads)`: noisy latents, a timestep each, and a ViewCondition that fits the model."""
    from gafcore.diffusion.unet import ViewCondition

    def make(model, n_heads: int = 2, seed: int = 5):
        g = torch.Generator().manual_seed(seed)
        c, size = model.config, model.config.sample_size
        n_extra = model.unet.config.in_channels - c.latent_channels
        rotations = torch.linalg.qr(torch.randn(n_heads, c.n_views, 3, 3, generator=g)).Q
        viewmats = torch.eye(4).repeat(n_heads, c.n_views, 1, 1)
        viewmats[..., :3, :3], viewmats[..., 2, 3] = rotations, 1.0
        condition = ViewCondition(
            image_latents=torch.randn(n_heads, c.latent_channels, size, size, generator=g),
            clip=torch.randn(n_heads, *(() if c.image_embedding == "global" else (7,)), c.clip_dim, generator=g),
            channels=torch.randn(n_heads, c.n_views, n_extra, size, size, generator=g) if n_extra else None,
            viewmats=viewmats,
        )
        return torch.randn(n_heads, c.n_views, c.latent_channels, size, size, generator=g), torch.tensor([17, 801])[:n_heads], condition

    return make


UPSAMPLER = dict(
    sample_size=16, block_out_channels=(16, 32), attention_levels=(False, True), layers_per_block=1, head_dim=16, norm_num_groups=8
)


@pytest.fixture
def tiny_parts(tiny_unet):
    """`tiny_parts(upsampler=True, **unet)`: the components of a pipeline for 16 x 16 pictures with 8 x 8 latents."""
    diffusers = pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `diffusion` is not installed")
    from gafcore.diffusion.upsampler import LatentUpsampler

    def make(upsampler: bool = True, prediction: str = "epsilon", **unet) -> dict:
        torch.manual_seed(1)
        clip = transformers.CLIPVisionConfig(
            hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=20
        )
        blocks = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8))
        return dict(
            vae=diffusers.AutoencoderKL(latent_channels=4, norm_num_groups=4, sample_size=16, **blocks).eval(),
            image_encoder=transformers.CLIPVisionModelWithProjection(clip).eval(),
            unet=tiny_unet(**unet),
            scheduler=diffusers.DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction
            ),
            upsampler=LatentUpsampler(**UPSAMPLER).eval() if upsampler else None,
        )

    return make
