"""Pairs of images that the photometric loss is tested and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageCase:
    """An image, what it should be, and weights of its pixels."""

    name: str
    shape: tuple[int, ...]  # [*B, H, W, C]
    masked: bool = False

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
        """Smooth structure plus noise, so that SSIM is neither 0 nor 1."""
        g = torch.Generator().manual_seed(0)
        height, width, channels = self.shape[-3:]
        y, x, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (height, width, channels)), indexing="ij")
        target = (0.5 + 0.4 * torch.sin(0.3 * x + 0.2 * y + c)).expand(self.shape).contiguous()
        image = (target + 0.15 * torch.randn(self.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
        mask = torch.rand(self.shape[:-1], generator=g, dtype=torch.float64) * (torch.rand(self.shape[:-1], generator=g) > 0.3)
        return image.to(dtype), target.to(dtype), mask.to(dtype) if self.masked else None


def image_cases() -> list[ImageCase]:
    return [
        ImageCase("rgb", (40, 53, 3)),
        ImageCase("rgb-masked", (40, 53, 3), masked=True),
        ImageCase("grey", (23, 31, 1)),
        ImageCase("seven-channels", (17, 19, 7), masked=True),
        ImageCase("batch", (2, 3, 20, 18, 3), masked=True),
        ImageCase("smallest-valid", (11, 11, 2)),
        ImageCase("wider-than-a-strip", (13, 301, 3)),
        ImageCase("wider-than-a-strip-of-grey", (11, 251, 1)),
        ImageCase("many-bands", (300, 12, 1), masked=True),
    ]


def small_image_cases() -> list[ImageCase]:
    """Smaller than the window: zero padding only."""
    return [
        ImageCase("one-pixel", (1, 1, 3)),
        ImageCase("row", (1, 40, 3), masked=True),
        ImageCase("column", (40, 1, 1)),
        ImageCase("five-by-four", (5, 4, 2)),
    ]
