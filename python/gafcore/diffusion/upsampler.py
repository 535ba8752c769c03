"""GAF's latent upsampler: views of twice the size from their latents, by a diffusion model of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.schedule import NoiseSchedule, strided_timesteps

STEPS = 10  # GAF, section 4.2


class LatentUpsampler(ModelMixin, ConfigMixin):
    """Latents [M, 4, h, w] to [M, 4, 2h, 2w]. Four of eight input channels are the small latent, slightly noisy, enlarged by repetition.

    The noise keeps the upsampler from trusting every detail of latents that a diffusion model made up (as in cascaded diffusion, Ho et
    al. 2022); its level is a second time embedding. Views are upsampled one by one: they agree at the coarse scale already, and the fit
    averages what is left.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        sample_size: int = 64,
        block_out_channels: Sequence[int] = (160, 320, 640, 640),
        attention_levels: Sequence[bool] = (False, False, True, True),
        layers_per_block: int = 2,
        head_dim: int = 64,
        norm_num_groups: int = 32,
        max_noise_level: int = 250,
    ) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=sample_size,
            in_channels=2 * latent_channels,
            out_channels=latent_channels,
            down_block_types=tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in attention_levels),
            up_block_types=tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention_levels)),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            attention_head_dim=head_dim,
            norm_num_groups=norm_num_groups,
            class_embed_type="identity",  # its own "timestep" embedding cannot run in half precision
        )
        width = block_out_channels[0]
        self.level_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.level_embedding = TimestepEmbedding(width, 4 * width)

    def enable_gradient_checkpointing(self, *args, **kwargs) -> None:
        self.unet.enable_gradient_checkpointing(*args, **kwargs)

    def forward(
        self, noisy: Float[Tensor, "M C H W"], timestep: Tensor, low: Float[Tensor, "M C h w"], noise_level: Tensor
    ) -> Float[Tensor, "M C H W"]:
        """The scheduler's model output.

        Args:
            noisy: Noisy latents of the large views.
            timestep: [M] or scalar.
            low: Latents of the small views, noised to `noise_level` already.
            noise_level: [M] or scalar timestep of that noise.
        """
        if noisy.shape[-2:] != tuple(2 * n for n in low.shape[-2:]) or noisy.shape[:2] != low.shape[:2]:
            raise ValueError(f"noisy must have twice the height and width of low, got {list(noisy.shape)} and {list(low.shape)}")
        given, noisy, low = noisy.dtype, noisy.to(self.dtype), low.to(self.dtype)  # samplers keep their latents in single precision
        large = torch.nn.functional.interpolate(low, scale_factor=2, mode="nearest")
        level = noise_level.to(noisy.device).expand(len(noisy))
        embedding = self.level_embedding(self.level_proj(level).to(noisy.dtype))
        return self.unet(torch.cat([noisy, large], 1), timestep.to(noisy.device), class_labels=embedding).sample.to(given)


def upsample(
    model: LatentUpsampler,
    schedule: NoiseSchedule,
    low: Float[Tensor, "M C h w"],
    noise: Float[Tensor, "M C H W"],
    low_noise: Float[Tensor, "M C h w"],
    *,
    steps: int = STEPS,
    noise_level: int = 50,
) -> Float[Tensor, "M C H W"]:
    """Ten DDIM steps from pure noise.

    Args:
        model: The upsampler.
        schedule: Its noise schedule.
        low: Clean latents of the small views.
        noise: Standard normal, the start.
        low_noise: Standard normal, for the noise on `low`.
        steps: DDIM steps.
        noise_level: Timestep of the noise on `low`; at most what the upsampler was trained with.

    Raises:
        ValueError: `noise_level` is beyond the training's, or there are more steps than timesteps.
    """
    if not 0 <= noise_level <= model.config.max_noise_level:
        raise ValueError(f"noise_level must be in 0..{model.config.max_noise_level}, as the upsampler was trained, got {noise_level}")
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps must be in 1..{len(schedule)}, got {steps}")
    low = schedule.add_noise(low, low_noise, noise_level) if noise_level else low
    level, x = torch.tensor(noise_level), noise
    times = strided_timesteps(len(schedule) - 1, len(schedule) // steps)[:steps]
    for t, to in zip(times, [*times[1:], None], strict=True):
        x = schedule.step(model(x, torch.tensor(t), low, level), x, t, to)
    return x
