from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import tiles
from gafcore import rasterization
from tests.cases.rasterization import Scene, head_ball, scene


def meta_of(made: Scene) -> tiles.Meta:
    with torch.no_grad():
        return made.call(rasterization, made.tensors(torch.float32))[2]


def discs(radius: float, *centres: tuple[float, float], opacity: float = 0.5, size: int = 48) -> tiles.Meta:
    """Circles that end `radius` pixels from their centres, each behind the one before."""
    n = len(centres)
    conic = 2 * math.log(255 * opacity) / radius**2
    return {
        "means2d": torch.tensor([centres]),
        "conics": torch.tensor([[[conic, 0.0, conic]] * n]),
        "opacities": torch.full((1, n), opacity),
        "depths": torch.arange(1.0, n + 1)[None],
        "radii": torch.full((1, n, 2), math.ceil(radius)),
        "width": size,
        "height": size,
    }


def blocks(meta: tiles.Meta, width: int, height: int) -> set[tuple[int, int]]:
    (splats,) = tiles.splats_of(meta)
    _, column, row = tiles.met(splats, (meta["width"], meta["height"]), (width, height))
    return set(zip(column.tolist(), row.tolist(), strict=True))


def test_blocks_that_a_disc_meets():
    meta = discs(10.0, (24.0, 24.0))
    # The middle tile has centres from 16.5 to 31.5. A corner's nearest is 8.5 away both ways, more than 10 in all.
    assert blocks(meta, 16, 16) == {(1, 0), (0, 1), (1, 1), (2, 1), (1, 2)}
    assert blocks(meta, 48, 1) == {(0, y) for y in range(14, 34)}  # centres from 14.5 to 33.5
    assert blocks(meta, 1, 48) == {(x, 0) for x in range(14, 34)}
    assert blocks(meta | {"width": 20}, 16, 16) == {(1, 0), (0, 1), (1, 1), (1, 2)}
    assert blocks(meta | {"radii": torch.zeros(1, 1, 2)}, 16, 16) == set()


def test_a_slanted_needle_meets_the_blocks_on_its_line():
    meta = discs(10.0, (8.0, 8.0), size=64) | {"conics": torch.tensor([[[1.0, -0.9999, 1.0]]])}  # along x = y
    found = blocks(meta, 4, 4)
    assert {(k, k) for k in range(16)} <= found and all(abs(x - y) <= 1 for x, y in found)


@pytest.mark.parametrize(
    "made", [scene("plain", cameras=2), scene("huge", scale=1.0, n=20, width=130, height=99), head_ball(3000, "256x256")[0]]
)
def test_with_the_cpus_tiles_they_are_its_pairs(made):
    meta = meta_of(made)
    size = (made.width, made.height)
    found = sum(len(tiles.met(splats, size, (32, 32))[0]) for splats in tiles.splats_of(meta))
    assert abs(found / int(meta["n_pairs"]) - 1) < 2e-3


def test_everything_is_walked_where_light_remains():
    sizes = tiles.pair_sizes(discs(10.0, (24.0, 24.0), (24.0, 24.0), (5.0, 5.0)))
    assert sizes["visible"] == 3 and sizes["pairs"] == sizes["walked"] == 5 + 5 + 1
    assert sizes["walks"] == sum(len(blocks(discs(10.0, c), 8, 4)) for c in ((24.0, 24.0), (24.0, 24.0), (5.0, 5.0)))


def test_a_dark_tile_is_not_walked_to_its_end():
    """600 discs over one tile, opaque at 0.9 even in its corners: after five of them T < 1e-4, seen when 32 were looked at."""
    n = 600
    meta = discs(10.0, *[(8.0, 8.0)] * n, opacity=0.9, size=16) | {"conics": torch.tensor([[[1e-6, 0.0, 1e-6]] * n])}
    assert tiles.pair_sizes(meta) == {"visible": n, "pairs": n, "walked": 256, "walks": 8 * 32}


def test_warps_outside_the_image_walk_nothing():
    meta = discs(10.0, (4.0, 4.0), opacity=0.5, size=8)
    assert tiles.pair_sizes(meta) == {"visible": 1, "pairs": 1, "walked": 1, "walks": 2}  # 8 x 8 pixels are two warps


def test_cameras_add_up():
    made = scene("two", cameras=2, n=40)
    both = tiles.pair_sizes(meta_of(made))
    inputs = {k: v[:1] if k in ("viewmats", "backgrounds") else v for k, v in made.inputs.items()}
    first = tiles.pair_sizes(meta_of(replace(made, inputs=inputs, Ks=made.Ks[:1])))
    inputs = {k: v[1:] if k in ("viewmats", "backgrounds") else v for k, v in made.inputs.items()}
    second = tiles.pair_sizes(meta_of(replace(made, inputs=inputs, Ks=made.Ks[1:])))
    assert both == {k: first[k] + second[k] for k in both}
