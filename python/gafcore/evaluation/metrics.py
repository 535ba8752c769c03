"""How far a render is from the truth: over the whole picture, and inside the head mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.ops import photometric_loss

Perceptual = Callable[[Tensor, Tensor], Tensor]
UNITS = {"l1": "", "psnr": "dB", "ssim": "", "lpips": ""}
_PSNR_LIMIT = 1e-12  # equal pictures count as 120 dB, so that means stay finite


def compare(
    image: Float[Tensor, "H W 3"],
    truth: Float[Tensor, "H W 3"],
    mask: Float[Tensor, "H W"] | None = None,
    perceptual: Perceptual | None = None,
) -> dict[str, float]:
    """L1, PSNR (dB), SSIM and, with `perceptual`, LPIPS; the first three again as "head_..." inside the mask.

    Args:
        image: The render; clipped to 0..1 as on a screen.
        truth: What it should look like, in 0..1.
        mask: The head is where it exceeds one half; no "head_..." figures where it is absent or empty.
        perceptual: `gafcore.fitting.load_lpips`; the figure without a prefix is over the whole picture, as LPIPS has no mask.
    """
    image = image.clamp(0, 1)
    values = _photometric(image, truth, None)
    if perceptual is not None:
        values["lpips"] = float(perceptual(image[None], truth[None])[0])
    head = None if mask is None else (mask > 0.5).to(image.dtype)
    if head is not None and bool(head.any()):
        values.update({f"head_{name}": value for name, value in _photometric(image, truth, head).items()})
    return values


def mean_values(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the rows that have it (PSNR: the mean of decibels, as the papers report it)."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: math.fsum(row[name] for row in rows if name in row) / sum(name in row for row in rows) for name in names}


def _photometric(image: Tensor, truth: Tensor, mask: Float[Tensor, "H W"] | None) -> dict[str, float]:
    l1, ssim = photometric_loss(image[None], truth[None], None if mask is None else mask[None])
    squared = (image - truth).square().mean(-1)
    error = float(squared.mean() if mask is None else (squared * mask).sum() / mask.sum())
    return {"l1": float(l1), "psnr": -10 * math.log10(max(error, _PSNR_LIMIT)), "ssim": float(ssim)}


def error_picture(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], full_scale: float = 0.25) -> Float[Tensor, "H W 3"]:
    """Mean absolute difference of the channels as heat: white is none, then yellow, red, and black from `full_scale` on."""
    heat = ((image.clamp(0, 1) - truth).abs().mean(-1) / full_scale).clamp(0, 1)
    return torch.stack([1 - (3 * heat - 2).clamp(0, 1), 1 - (3 * heat - 1).clamp(0, 1), 1 - (3 * heat).clamp(0, 1)], dim=-1)
