"""The loss of GAF, equations 5-8 (the hinges as the released code of GaussianAvatars has them: zero below the threshold)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.fitting.config import LossWeights
from gafcore.ops import photometric_loss

Perceptual = Callable[[Tensor, Tensor], Tensor]


def image_loss(
    image: Float[Tensor, "C H W 3"],
    target: Float[Tensor, "C H W 3"],
    weights: LossWeights,
    perceptual: Perceptual | None = None,
    mask: Float[Tensor, "C H W"] | None = None,
) -> Float[Tensor, ""]:
    """L_img = l1 |x - y| + ssim (1 - SSIM) + lpips LPIPS; the last term where `perceptual` is given. `mask` weights pixels (not LPIPS)."""
    l1, ssim = photometric_loss(image, target, mask)
    loss = weights.l1 * l1 + weights.ssim * (1 - ssim)
    if perceptual is not None and weights.lpips > 0:
        loss = loss + weights.lpips * perceptual(image, target).mean()
    return loss


def position_penalty(means: Float[Tensor, "N 3"], visible: Bool[Tensor, "N"], limit: float) -> Float[Tensor, ""]:
    """Mean distance of the visible local means beyond `limit` triangle sizes."""
    return _visible_mean(torch.relu(_safe_norm(means) - limit), visible)


def scale_penalty(log_scales: Float[Tensor, "N 3"], visible: Bool[Tensor, "N"], limit: float) -> Float[Tensor, ""]:
    """Mean length of the visible local scales' excess over `limit` triangle sizes."""
    return _visible_mean(_safe_norm(torch.relu(log_scales.exp() - limit)), visible)


def _visible_mean(values: Float[Tensor, "N"], visible: Bool[Tensor, "N"]) -> Float[Tensor, ""]:
    return (values * visible).sum() / visible.sum().clamp(min=1)


def _safe_norm(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Length whose gradient at zero is zero instead of NaN."""
    return x.square().sum(-1).clamp(min=1e-24).sqrt()
