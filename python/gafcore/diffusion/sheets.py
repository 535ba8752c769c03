"""Validation sheets: what a model makes of held-out samples, beside the truth."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.attention.processor import References
from gafcore.diffusion import randomness
from gafcore.diffusion.encode import decode_latents
from gafcore.diffusion.encoded import EncodedSample
from gafcore.diffusion.sample import ViewSample
from gafcore.diffusion.schedule import NoiseSchedule, strided_timesteps
from gafcore.diffusion.unet import ViewCondition
from gafcore.diffusion.upsampler import upsample


def grid(rows: list[Float[Tensor, "K 3 H W"]]) -> Float[Tensor, "3 Y X"]:
    """Rows of pictures of one size as one picture, two white pixels between; short rows end in white."""
    n_columns, (_, _, height, width) = max(map(len, rows)), rows[0].shape
    sheet = torch.ones(3, len(rows) * (height + 2) - 2, n_columns * (width + 2) - 2)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet[:, y * (height + 2) :, x * (width + 2) :][:, :height, :width] = picture
    return sheet


@torch.no_grad()
def sample_views(model: Any, schedule: NoiseSchedule, batch: EncodedSample, noise: Float[Tensor, "B N C h w"], steps: int) -> Tensor:
    """Latents of the views, without guidance."""
    condition = ViewCondition(batch.image_latents, batch.clip, batch.channels, batch.viewmats)
    references: References = {}
    times, x = strided_timesteps(len(schedule) - 1, len(schedule) // steps), noise
    for t, to in zip(times, [*times[1:], None], strict=True):
        x = schedule.step(model(x, torch.tensor(t), condition, references), x, t, to)
    return x


def multiview_sheet(model: Any, schedule: NoiseSchedule, vae: Any, batch: EncodedSample, steps: int, seed: int) -> Tensor:
    """For each sample a row of input and normal maps, a row of drawn views, a row of truths."""
    generators = [randomness.generator(seed, 3, i) for i in range(len(batch.latents))]
    noise = randomness.normal(generators, batch.latents.shape[1:]).to(batch.latents)
    drawn = decode_latents(vae, sample_views(model, schedule, batch, noise, steps))
    truth, picture = decode_latents(vae, batch.latents), decode_latents(vae, batch.image_latents)
    n_channels = batch.latents.shape[2]
    normals = torch.zeros_like(truth) if batch.channels is None else decode_latents(vae, batch.channels[:, :, :n_channels])
    blank = torch.ones_like(picture)
    rows: list[Tensor] = []
    for i in range(len(truth)):
        lead = (picture[i : i + 1], blank[i : i + 1], blank[i : i + 1])
        rows += [torch.cat([first, views]) for first, views in zip(lead, (normals[i], drawn[i], truth[i]), strict=True)]
    return grid([row.cpu() for row in rows])


@torch.no_grad()
def upsampler_sheet(model: Any, schedule: NoiseSchedule, vae: Any, batch: EncodedSample, seed: int) -> Tensor:
    """For each sample rows of small views enlarged, of upsampled views, of truths."""
    if batch.low_latents is None:
        raise ValueError("the upsampler's samples have low_latents; these have none")
    generators = [randomness.generator(seed, 3, i) for i in range(len(batch.latents))]
    noise, low_noise = (randomness.normal(generators, x.shape[1:]).to(x) for x in (batch.latents, batch.low_latents))
    flat = (x.flatten(0, 1) for x in (batch.low_latents, noise, low_noise))
    large = decode_latents(vae, upsample(model, schedule, *flat).unflatten(0, batch.latents.shape[:2]))
    small, truth = decode_latents(vae, batch.low_latents), decode_latents(vae, batch.latents)
    enlarged = torch.nn.functional.interpolate(small.flatten(0, 1), scale_factor=2, mode="nearest").unflatten(0, truth.shape[:2])
    return grid([row.cpu() for i in range(len(truth)) for row in (enlarged[i], large[i], truth[i])])


@torch.no_grad()
def autoencoder_sheet(vae: Any, batch: ViewSample) -> Tensor:
    """For each sample a row of pictures and normal maps, and what is left of them."""
    pixels = torch.cat([2 * batch.targets - 1, batch.normals], 1).permute(0, 1, 4, 2, 3)
    back = vae.decode(vae.encode(pixels.flatten(0, 1)).latent_dist.mode()).sample.unflatten(0, pixels.shape[:2])
    rows = [row.cpu() for i in range(len(pixels)) for row in (pixels[i], back[i])]
    return grid([(row / 2 + 0.5).clamp(0, 1) for row in rows])
