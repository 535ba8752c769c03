"""Samples as a network in latent space trains on them, and the frozen networks that make them from pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.encode import clip_features, encode_pixels, view_channels
from gafcore.diffusion.sample import SampleSet, ViewSample


@dataclass(frozen=True)
class EncodedSample:
    """A `ViewSample` after the autoencoder and CLIP; a batch has one more leading dimension.

    Attributes:
        latents: Of the target views, scaled.
        image_latents: Of the input picture.
        clip: CLIP's embedding [D], or its penultimate layer's tokens [T, D].
        channels: Latents of normals (and of warped colours, with visibility), as the model's condition wants them; None for none.
        viewmats: Target cameras, world-to-camera.
        low_latents: Of the targets at half size, for the upsampler; None where not made.
        key: Of the sample.
    """

    latents: Float[Tensor, "*B N C h w"]
    image_latents: Float[Tensor, "*B C h w"]
    clip: Float[Tensor, "*B D"] | Float[Tensor, "*B T D"]
    channels: Float[Tensor, "*B N X h w"] | None
    viewmats: Float[Tensor, "*B N 4 4"]
    low_latents: Float[Tensor, "*B N C h2 w2"] | None = None
    key: str | tuple[str, ...] = ""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                yield f.name, value


def collate_encoded(samples: Sequence[EncodedSample]) -> EncodedSample:
    """Samples of one size as a batch, float32."""
    parts = [dict(sample.tensors()) for sample in samples]
    stacked: dict[str, Any] = {name: torch.stack([part[name].float() for part in parts]) for name in parts[0]}
    return EncodedSample(**({"channels": None} | stacked), key=tuple(str(s.key) for s in samples))


@dataclass(frozen=True)
class Encoder:
    """The frozen networks. `condition` and `tokens` as in the model that is to be trained; `low` also encodes the targets at half size."""

    vae: Any
    image_encoder: Any
    condition: str
    tokens: bool = False
    low: bool = False

    @torch.no_grad()
    def __call__(self, sample: ViewSample) -> EncodedSample:
        """Encode one sample (not a batch)."""
        targets, normals = (x.permute(0, 3, 1, 2)[None] for x in (sample.targets, sample.normals))
        image = sample.image.permute(2, 0, 1)[None]
        warp = None if sample.warp is None else sample.warp.permute(0, 3, 1, 2)[None]
        visibility = None if sample.visibility is None else sample.visibility[None]
        channels = view_channels(self.vae, self.condition, normals, warp, visibility)
        half = torch.nn.functional.interpolate(targets[0], scale_factor=0.5, mode="area") if self.low else None
        return EncodedSample(
            latents=encode_pixels(self.vae, 2 * targets - 1)[0],
            image_latents=encode_pixels(self.vae, 2 * image - 1)[0],
            clip=clip_features(self.image_encoder, image, tokens=self.tokens)[0],
            channels=None if channels is None else channels[0],
            viewmats=sample.viewmats,
            low_latents=None if half is None else encode_pixels(self.vae, 2 * half - 1),
            key=sample.key,
        )


@dataclass(frozen=True)
class EncodedSet:
    """A data set of pictures, encoded when asked; shards hold the result where that is too slow."""

    pictures: SampleSet
    encoder: Encoder

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.encoder(self.pictures[index])
