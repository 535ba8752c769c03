"""Pictures to latents and back, and a picture to CLIP's features: the same for sampling, training and shards."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.pictures import clip_pixels


def encode_pixels(vae: Any, pixels: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B C h w"]:
    """Scaled latents of pictures (or normal maps) in -1..1: the posterior's mode, so that nothing depends on a seed here."""
    flat = pixels.flatten(0, -4).to(vae.device, vae.dtype)
    latents = vae.encode(flat).latent_dist.mode() * vae.config.scaling_factor
    return latents.unflatten(0, pixels.shape[:-3])


def decode_latents(vae: Any, latents: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B 3 H W"]:
    """Pictures in 0..1."""
    flat = latents.flatten(0, -4).to(vae.device, vae.dtype)
    pixels = vae.decode(flat / vae.config.scaling_factor, return_dict=False)[0]
    return (pixels.float() / 2 + 0.5).clamp(0, 1).unflatten(0, latents.shape[:-3])


def clip_features(image_encoder: Any, pictures: Float[Tensor, "B 3 H W"], *, tokens: bool) -> Float[Tensor, "B D"] | Float[Tensor, "B T D"]:
    """CLIP's image embedding, or its penultimate layer's tokens where `tokens`, of pictures in 0..1."""
    pixels = clip_pixels(pictures, image_encoder.config.image_size).to(image_encoder.device, image_encoder.dtype)
    out = image_encoder(pixels, output_hidden_states=tokens)
    return out.hidden_states[-2] if tokens else out.image_embeds


def view_channels(
    vae: Any,
    condition: str,
    normals: Float[Tensor, "B N 3 H W"],
    warp: Float[Tensor, "B N 3 H W"] | None,
    visibility: Float[Tensor, "B N H W"] | None,
) -> Float[Tensor, "B N X h w"] | None:
    """What a model with this `condition` takes beside the noisy latents: normals (-1..1) and, for "warp", colours (0..1) and visibility.

    Raises:
        ValueError: The model needs `warp` and `visibility` and they are not given.
    """
    if condition in ("pose", "none"):
        return None
    latents = encode_pixels(vae, normals)
    if condition != "warp":
        return latents
    if warp is None or visibility is None:
        raise ValueError("this model is conditioned on the warped picture; pass warp and visibility")
    colours = encode_pixels(vae, 2 * warp - 1)
    seen = torch.nn.functional.interpolate(visibility.to(latents), latents.shape[-2:], mode="area")[:, :, None]
    return torch.cat([latents, colours, seen], 2)
