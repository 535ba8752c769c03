"""Noise levels and sampling of the small prior: a cosine schedule that ends in pure noise, a network that predicts the clean picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(noisy views, level) to clean views."""


def signal(level: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Share of the picture in the mixture at a level in 0..1: cos(pi t / 2), exactly 0 at 1 (zero terminal SNR, Lin et al. 2024)."""
    return torch.where(level >= 1, torch.zeros_like(level), torch.cos(level * (math.pi / 2)))


def mix(clean: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], level: Float[Tensor, "B"]) -> Float[Tensor, "B *S"]:
    """Variance-preserving mixture of pictures in -1..1 and unit noise."""
    shape = (-1, *[1] * (clean.dim() - 1))
    return signal(level).view(shape) * clean + torch.sin(level * (math.pi / 2)).view(shape) * noise


def loss_weight(level: Float[Tensor, "B"], largest: float = 5.0) -> Float[Tensor, "B"]:
    """min(1 / sigma^2, largest) on the error of the clean picture."""
    return (1 / torch.sin(level * (math.pi / 2)).square().clamp_min(1e-6)).clamp_max(largest)


def ddim(noisy: Tensor, start: float, steps: int, denoise: Denoise) -> Tensor:
    """Deterministic sampling (Song et al. 2021) from level `start` to 0 in equal steps.

    Exact with an oracle that knows the clean picture, whatever the number of steps.
    """
    levels = [start * (1 - k / steps) for k in range(steps + 1)]
    for level, following in pairwise(levels):
        clean = denoise(noisy, level).clamp(-1, 1)
        if following == 0:
            return clean
        now, later = torch.tensor(level), torch.tensor(following)
        noise = (noisy - signal(now) * clean) / torch.sin(now * (math.pi / 2))
        noisy = signal(later) * clean + torch.sin(later * (math.pi / 2)) * noise
    return noisy
