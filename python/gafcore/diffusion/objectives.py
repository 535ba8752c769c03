"""What `gafcore train-prior` trains: multi-view model, upsampler or autoencoder. A loss each, a function of batch and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gafcore.diffusion import randomness
from gafcore.diffusion.encoded import EncodedSample
from gafcore.diffusion.sample import ViewSample
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.diffusion.unet import ViewCondition

Generators = Sequence[torch.Generator]


class Objective(Protocol):
    """A loss [B] of a model on a batch; everything random comes from one generator for each sample."""

    def __call__(self, model: nn.Module, batch: Any, generators: Generators) -> Tensor: ...


def _weighted(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    error = (output.float() - target.float()).square().flatten(1).mean(1)
    return error if weight is None else error * weight.to(error.device)


@dataclass(frozen=True)
class MultiViewObjective:
    """Noise prediction over the views of a head, all at one timestep; the input picture dropped at a rate (GAF, section 4.4).

    Attributes:
        schedule: Noise and kind of prediction.
        drop: Rate at which the picture's latent and CLIP are dropped together; normals stay.
        snr_gamma: Min-SNR's gamma, 0 for none.
    """

    schedule: NoiseSchedule
    drop: float = 0.1
    snr_gamma: float = 5.0

    def __call__(self, model: nn.Module, batch: EncodedSample, generators: Generators) -> Tensor:
        clean, device = batch.latents, batch.latents.device
        t = randomness.integers(generators, len(self.schedule))  # stays on the CPU, where the schedule is
        keep = (randomness.uniform(generators) >= self.drop).to(device)
        noise = randomness.normal(generators, clean.shape[1:]).to(clean)
        condition = ViewCondition(batch.image_latents, batch.clip, batch.channels, batch.viewmats, keep)
        output = model(self.schedule.add_noise(clean, noise, t), t.to(device), condition)
        weight = self.schedule.snr_weight(t, self.snr_gamma) if self.snr_gamma else None
        return _weighted(output, self.schedule.target(clean, noise, t), weight)


@dataclass(frozen=True)
class UpsamplerObjective:
    """The upsampler's noise prediction, views one by one, the small latents noised to a random level below the model's limit."""

    schedule: NoiseSchedule
    snr_gamma: float = 5.0
    max_noise_level: int = 250

    def __call__(self, model: nn.Module, batch: EncodedSample, generators: Generators) -> Tensor:
        if batch.low_latents is None:
            raise ValueError("the upsampler trains on latents of targets at half size; the samples have none")
        clean, low, device = batch.latents, batch.low_latents, batch.latents.device
        t = randomness.integers(generators, len(self.schedule))
        level = randomness.integers(generators, self.max_noise_level + 1)
        noise = randomness.normal(generators, clean.shape[1:]).to(clean)
        low_noise = randomness.normal(generators, low.shape[1:]).to(low)
        n_views = clean.shape[1]
        noisy, small = self.schedule.add_noise(clean, noise, t), self.schedule.add_noise(low, low_noise, level)
        times, levels = (x.to(device).repeat_interleave(n_views) for x in (t, level))
        output = model(noisy.flatten(0, 1), times, small.flatten(0, 1), levels).unflatten(0, clean.shape[:2])
        weight = self.schedule.snr_weight(t, self.snr_gamma) if self.snr_gamma else None
        return _weighted(output, self.schedule.target(clean, noise, t), weight)


@dataclass(frozen=True)
class AutoencoderObjective:
    """L1 of the pictures and normal maps, and a little of the posterior's divergence, which keeps latents near unit size.

    No adversary and no perceptual loss: they need networks that are not at hand everywhere; the price is softer pictures.
    """

    kl_weight: float = 1e-6

    def __call__(self, model: nn.Module, batch: ViewSample, generators: Generators) -> Tensor:
        pixels = torch.cat([2 * batch.targets - 1, batch.normals], 1).permute(0, 1, 4, 2, 3)  # [B, 2 N, 3, H, W]
        decoded, mean, logvar = model(pixels.flatten(0, 1), lambda shape: self._noise(generators, pixels.shape[:2], shape).to(pixels))
        n_heads = len(pixels)
        error = (decoded - pixels.flatten(0, 1)).abs().unflatten(0, pixels.shape[:2]).flatten(1).mean(1)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).unflatten(0, (n_heads, -1)).flatten(1).mean(1)
        return error + self.kl_weight * kl

    @staticmethod
    def _noise(generators: Generators, lead: Sequence[int], shape: Sequence[int]) -> Tensor:
        return randomness.normal(generators, (lead[1], *shape[1:])).flatten(0, 1)


class AutoencoderForTraining(nn.Module):
    """diffusers' autoencoder with the posterior's noise from outside, so that it follows the samples' seeds."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, pixels: Tensor, noise: Any) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * noise(posterior.mean.shape)
        return self.vae.decode(latents).sample, posterior.mean, posterior.logvar
