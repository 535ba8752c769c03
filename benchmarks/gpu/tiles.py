"""How many blocks of pixels the splats of a frame touch: what the rasterizer's kernels work through, counted in torch beside them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ALPHA_MIN = 1 / 255
SLACK = 1e-3  # pixels, as in csrc/math/ellipse.h


def blocks_met(meta: dict[str, Any], block_width: int, block_height: int) -> int:
    """Pairs of a splat and a block of pixels whose centres its ellipse alpha >= 1/255 comes to, over all cameras.

    With tiles of 16 x 16 they are the rasterizer's pairs (to a thousandth: it rounds); with 8 x 4, the pairs of a splat and a warp of
    blending, before any light is cut off.

    Args:
        meta: What `gafcore.rasterization` returned: means2d [C, N, 2], conics [C, N, 3], opacities and radii.
    """
    seen = (meta["radii"] > 0).all(-1)
    x, y = meta["means2d"].detach()[seen].double().unbind(-1)
    xx, xy, yy = meta["conics"].detach()[seen].double().unbind(-1)
    reach = 2 * (meta["opacities"].detach()[seen].double() / ALPHA_MIN).log().clamp(min=0)
    det = xx * yy - xy * xy
    half_height, side_y = (reach * xx / det).sqrt(), -xy / yy * (reach * yy / det).sqrt()
    first, last = _span(y - half_height, y + half_height, block_height, meta["height"])
    splat = torch.repeat_interleave(torch.arange(len(x), device=x.device), (last - first + 1).clamp(min=0))
    slab = first[splat] + _positions(splat)
    x, y, xx, xy, det, reach, half_height, side_y = (z[splat] for z in (x, y, xx, xy, det, reach, half_height, side_y))
    bottom = torch.minimum(torch.full_like(y, meta["height"] - 0.5), (slab + 1) * block_height - 0.5)
    lo, hi = torch.maximum(slab * block_height + 0.5 - y, -half_height), torch.minimum(bottom - y, half_height)

    def edge(at: Tensor, sign: float) -> Tensor:
        at = torch.minimum(torch.maximum(at, lo), hi)
        return x + (-xy * at + sign * (reach * xx - det * at * at).clamp(min=0).sqrt()) / xx

    first, last = _span(edge(-side_y, -1) - SLACK, edge(side_y, 1) + SLACK, block_width, meta["width"])
    return int(torch.where(lo <= hi, (last - first + 1).clamp(min=0), 0).sum())


def _span(low: Tensor, high: Tensor, block: int, size: int) -> tuple[Tensor, Tensor]:
    """First and last block of those with a pixel centre between `low` and `high`; centres lie at + 0.5."""
    first, last = (low - 0.5).ceil().clamp(min=0), (high - 0.5).floor().clamp(max=size - 1)
    last = torch.where(first <= last, last, -math.inf).clamp(min=-block)
    return (first / block).floor().long(), (last / block).floor().long()


def _positions(splat: Tensor) -> Tensor:
    """0, 1, 2, ... within each run of equal numbers."""
    n = torch.arange(len(splat), device=splat.device)
    starts = torch.ones_like(splat, dtype=torch.bool)
    starts[1:] = splat[1:] != splat[:-1]
    return n - torch.where(starts, n, 0).cummax(0).values if len(splat) else n
