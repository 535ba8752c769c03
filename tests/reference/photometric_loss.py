"""L1 and SSIM with plain convolutions, as the 3D Gaussian splatting papers compute them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def window(dtype: torch.dtype) -> Tensor:
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    return torch.outer(taps, taps).to(dtype)


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """[N, H, W] images to their SSIM at every pixel, zero outside."""
    x, y = image[:, None], target[:, None]

    def mean(z: Tensor) -> Tensor:
        return conv2d(z, window(z.dtype).to(z.device)[None, None], padding=5)

    mx, my = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (var_x + var_y + c2)))[:, 0]


def photometric_loss(image: Tensor, target: Tensor, mask: Tensor | None = None, *, padding: str = "zeros") -> tuple[Tensor, Tensor]:
    height, width, channels = image.shape[-3:]
    x, y = (z.reshape(-1, height, width, channels).permute(0, 3, 1, 2).reshape(-1, height, width) for z in (image, target))
    weight = torch.ones(image.shape[:-1], dtype=image.dtype, device=image.device) if mask is None else mask
    weight = weight.reshape(-1, 1, height, width).expand(-1, channels, -1, -1).reshape(-1, height, width)
    inner = slice(5, -5) if padding == "valid" else slice(None)
    l1 = (weight * (x - y).abs()).sum() / weight.sum()
    inner_weight = weight[:, inner, inner]
    return l1, (inner_weight * ssim_map(x, y)[:, inner, inner]).sum() / inner_weight.sum()
