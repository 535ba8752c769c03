"""What the rasterizer's kernels work through in a frame, counted in torch: which blocks of pixels a splat touches, and how far each warp
walks the list of its tile before its light is cut off.

`python -m benchmarks.gpu.tiles OUT.json` counts the profiled cases on a CPU.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN = 1 / 255, 0.999, 1e-4
SLACK = 1e-3  # pixels, as in csrc/math/ellipse.h
TILE, BUCKET, LOOK = 16, 256, 32  # a warp looks every 32 splats of its tile's list whether it still has light
WARP_WIDTH, WARP_HEIGHT = 8, 4
Meta = dict[str, Any]


class Splats(NamedTuple):
    """The visible ones of a camera, in the order of their rows; double."""

    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    opacity: Tensor
    depth: Tensor


def splats_of(meta: Meta) -> Iterator[Splats]:
    """Camera by camera, of what `gafcore.rasterization` returned: means2d, conics, opacities, radii, depths."""
    for c in range(len(meta["radii"])):
        seen = (meta["radii"][c] > 0).all(-1)
        numbers = [*meta["means2d"][c].unbind(-1), *meta["conics"][c].unbind(-1), meta["opacities"][c], meta["depths"][c]]
        yield Splats(*(z.detach()[seen].double() for z in numbers))


def met(splats: Splats, size: tuple[int, int], block: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Splat, column and row of each block of pixels whose centres the ellipse alpha >= 1/255 of a splat comes to.

    With blocks of 16 x 16 they are the rasterizer's pairs (to a thousandth: it rounds), with 8 x 4 those of a splat and a warp.

    Args:
        size: Width and height of the image, pixels.
        block: Those of a block.
    """
    s, (width, height) = splats, size
    reach = 2 * (s.opacity / ALPHA_MIN).log().clamp(min=0)
    det = s.xx * s.yy - s.xy * s.xy
    half_height, side_y = (reach * s.xx / det).sqrt(), -s.xy / s.yy * (reach * s.yy / det).sqrt()
    splat, row = _expanded(*_span(s.y - half_height, s.y + half_height, block[1], height))
    x, y, xx, xy, det, reach, half_height, side_y = (z[splat] for z in (s.x, s.y, s.xx, s.xy, det, reach, half_height, side_y))
    bottom = ((row + 1) * block[1]).clamp(max=height) - 0.5
    lo, hi = torch.maximum(row * block[1] + 0.5 - y, -half_height), torch.minimum(bottom - y, half_height)

    def edge(at: Tensor, sign: float) -> Tensor:
        at = torch.minimum(torch.maximum(at, lo), hi)
        return x + (-xy * at + sign * (reach * xx - det * at * at).clamp(min=0).sqrt()) / xx

    first, last = _span(edge(-side_y, -1) - SLACK, edge(side_y, 1) + SLACK, block[0], width)
    slab, column = _expanded(first, torch.where(lo <= hi, last, first - 1))
    return splat[slab], column, row[slab]


def _span(low: Tensor, high: Tensor, block: int, size: int) -> tuple[Tensor, Tensor]:
    """First and last block of those with a pixel centre between `low` and `high`; centres lie at + 0.5."""
    first, last = (low - 0.5).ceil().clamp(min=0), (high - 0.5).floor().clamp(max=size - 1)
    last = torch.where(first <= last, last, -math.inf).clamp(min=-block)
    return (first / block).floor().long(), (last / block).floor().long()


def _expanded(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """For each i the numbers from first[i] to last[i], one after the other: i, and the number."""
    counts = (last - first + 1).clamp(min=0)
    owner = torch.repeat_interleave(torch.arange(len(first), device=first.device), counts)
    before = counts.cumsum(0) - counts
    return owner, first[owner] + torch.arange(len(owner), device=first.device) - before[owner]


def pair_sizes(meta: Meta) -> dict[str, int]:
    """Visible splats, their pairs with tiles, how many of these are walked (in whole buckets), and the walks: pairs of a splat and a warp
    that it touches, before the warp's light is cut off."""
    total = dict.fromkeys(("visible", "pairs", "walked", "walks"), 0)
    for splats in splats_of(meta):
        total["visible"] += len(splats.x)
        for tile in _tiles(splats, (meta["width"], meta["height"])):
            total["pairs"] += len(tile.splats.x)
            walked, walks = tile.walked()
            total["walked"] += walked
            total["walks"] += walks
    return total


class Tile(NamedTuple):
    splats: Splats  # nearest first
    touched: Tensor  # [n, 8] by its warps
    column: int
    row: int
    size: tuple[int, int]

    def walked(self) -> tuple[int, int]:
        """Pairs that the tile's block stages, and (splat, warp) pairs that are blended."""
        n, device = len(self.splats.x), self.splats.x.device
        y, x = torch.meshgrid(*(torch.arange(TILE, device=device) + TILE * k for k in (self.row, self.column)), indexing="ij")
        inside = ((x < self.size[0]) & (y < self.size[1])).flatten()
        s = Splats(*(z[:, None] for z in self.splats))
        dx, dy = x.flatten() + 0.5 - s.x, y.flatten() + 0.5 - s.y
        alpha = (s.opacity * torch.exp(-0.5 * (s.xx * dx * dx + s.yy * dy * dy) - s.xy * dx * dy)).clamp(max=ALPHA_MAX)
        light = torch.cumprod(1 - torch.where(alpha >= ALPHA_MIN, alpha, 0), 0) * inside
        looks = torch.arange(LOOK, n + LOOK, LOOK, device=device)  # the last look comes when the list ends
        bright = (light[looks.clamp(max=n) - 1] >= TRANSMITTANCE_MIN).unflatten(1, (4, WARP_HEIGHT, 2, WARP_WIDTH)).any(4).any(2).flatten(1)
        lit = bright.cumprod(0).sum(0)  # looks that a warp comes through; it stops at the next
        stops = torch.where(inside.view(4, WARP_HEIGHT, 2, WARP_WIDTH).any(3).any(1).flatten(), ((lit + 1) * LOOK).clamp(max=n), 0)
        staged = min(n, math.ceil(int(stops.max()) / BUCKET) * BUCKET)
        blended = self.touched & (torch.arange(n, device=device)[:, None] < stops)
        return staged, int(blended.sum())


def _tiles(splats: Splats, size: tuple[int, int]) -> Iterator[Tile]:
    """The tiles that have splats."""
    across = math.ceil(size[0] / TILE)
    splat, column, row = met(splats, size, (TILE, TILE))
    sub_splat, sub_column, sub_row = met(splats, size, (WARP_WIDTH, WARP_HEIGHT))
    n_tiles = across * math.ceil(size[1] / TILE)
    keys = splat * n_tiles + row * across + column  # ascending: met goes splat by splat, row by row, column by column
    sub_keys = sub_splat * n_tiles + sub_row // 4 * across + sub_column // 2
    at = torch.searchsorted(keys, sub_keys).clamp(max=max(len(keys) - 1, 0))
    met_too = keys[at] == sub_keys  # rounding may find a warp where it finds no tile
    touched = torch.zeros(len(keys), 8, dtype=torch.bool, device=keys.device)
    touched[at[met_too], (sub_row % 4 * 2 + sub_column % 2)[met_too]] = True
    tile = row * across + column
    order = torch.argsort(splats.depth[splat], stable=True)  # of equally near ones the first row
    order = order[torch.argsort(tile[order], stable=True)]
    numbers, counts = torch.unique_consecutive(tile[order], return_counts=True)
    for number, members in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
        yield Tile(Splats(*(z[splat[members]] for z in splats)), touched[members], number % across, number // across, size)


def main() -> None:
    from benchmarks.gpu import animation, cases, ops, rasterizer, steps
    from gafcore.files import write_json

    for module in (animation, ops, rasterizer, steps):
        module.DEVICE = "cpu"
    sizes = {}
    for name, make in cases.CASES.items():
        sizes[name] = make().sizes()
        print(name, sizes[name], flush=True)
    write_json(Path(sys.argv[1]), {"how": "python -m benchmarks.gpu.tiles, on a CPU", "sizes": sizes})


if __name__ == "__main__":
    main()
