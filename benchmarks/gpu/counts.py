"""What each kernel must read, write and issue, counted from sizes (docs/kernels/roofline.md).

Bytes are those that a launch asks memory for at least: every operand once, nothing twice, whatever a cache may save or a partly used
sector may cost. Instructions are a warp's, for all 32 lanes, counted in the disassembly for sm_90 or in the source, as docs/kernels has
them; None where nobody has counted.

Sizes: `gaussians` N, `cameras` C, `width`, `height`, `sh` degree, `visible` splats, `pairs` of splats and tiles, `walked` of them (in whole
buckets, before their tile was dark), `walks` pairs of a splat and a warp, `backward` 0 or 1; `numbers` of an image, `parameters` of Adam;
`vertices`, `faces`, `poses`, `joints` of a mesh, `covered` pixels, `channels` that are interpolated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

Sizes = dict[str, int]
TILE, BUCKET, PAIR_BLOCKS, PAIR_WARPS = 16, 256, 256, 16
BLEND_INSTRUCTIONS, BLEND_VJP_INSTRUCTIONS = 19, 56  # of a warp and one of its splats, RGB (docs/kernels/rasterization.md)
LOSS_INSTRUCTIONS = 310 + 290  # of both roles, for two numbers a lane; 16 % of the lanes stand beside their strip (docs/kernels/cuda.md)
SCREEN_TRIANGLE = 120  # bytes: four planes of three doubles, a box, a number


class Count(NamedTuple):
    n_bytes: int
    instructions: int | None = None


def _tiles(s: Sizes) -> int:
    return s["cameras"] * math.ceil(s["width"] / TILE) * math.ceil(s["height"] / TILE)


def _pixels(s: Sizes) -> int:
    return s["cameras"] * s["width"] * s["height"]


def _splats(s: Sizes) -> int:
    return s["cameras"] * s["gaussians"]


def _gaussian(s: Sizes) -> int:
    """Bytes of a Gaussian: mean, quaternion, scale, opacity, harmonics."""
    return 4 * (3 + 4 + 3 + 1 + 3 * (s["sh"] + 1) ** 2)


def pair_blocks(s: Sizes) -> int:
    """Blocks of count_pairs and emit_pairs, as csrc/cuda/rasterization_pairs.cu cuts them."""
    groups = math.ceil(math.ceil(s["gaussians"] / 16) * 16 / 32)
    rounds = max(1, math.ceil(s["cameras"] * groups / (PAIR_BLOCKS * PAIR_WARPS)))
    return s["cameras"] * math.ceil(groups / (rounds * PAIR_WARPS))


def _checkpoints(s: Sizes) -> int:
    """Bytes: transmittance and colours of a tile's pixels before each of its buckets but the first; at least so many."""
    return 16 * max(0, s["walked"] - BUCKET * _tiles(s))


def project(s: Sizes) -> Count:
    return Count(_splats(s) * (_gaussian(s) + 64 + 36))


def count_pairs(s: Sizes) -> Count:
    return Count(32 * _splats(s) + 4 * pair_blocks(s) * _tiles(s) // s["cameras"])


def sum_counts(s: Sizes) -> Count:
    return Count(16 * _tiles(s) + s["backward"] * 8 * math.ceil(_splats(s) / 32))


def emit_pairs(s: Sizes) -> Count:
    return Count(36 * _splats(s) + (12 if s["backward"] else 8) * s["pairs"] + 12 * pair_blocks(s) * _tiles(s) // s["cameras"])


def sort_lists(s: Sizes) -> Count:
    return Count((12 + 8 if s["backward"] else 8 + 4) * s["pairs"])


def blend(s: Sizes) -> Count:
    kept = _checkpoints(s) if s["backward"] else 0
    return Count(44 * s["walked"] + 16 * _pixels(s) + kept, BLEND_INSTRUCTIONS * s["walks"])


def blend_vjp(s: Sizes) -> Count:
    """A bucket reads its pixels' image, alpha and gradients (32 bytes), and their checkpoint unless it is a tile's first."""
    return Count((48 + 48 + 1) * s["walked"] + 32 * s["walked"] + _checkpoints(s), BLEND_VJP_INSTRUCTIONS * s["walks"])


def clear_sums(s: Sizes) -> Count:
    return Count(s["pairs"])


def sum_pairs(s: Sizes) -> Count:
    return Count(s["pairs"] + 48 * s["walked"] + (64 + 72) * _splats(s))


def project_vjp(s: Sizes) -> Count:
    return Count(2 * s["gaussians"] * _gaussian(s) + 80 * _splats(s))


def bind(s: Sizes) -> Count:
    """Vertices and faces are few and are not counted."""
    return Count(s["gaussians"] * (48 + 40 * s["poses"]))


def bind_local(s: Sizes) -> Count:
    return Count(s["gaussians"] * (48 + 40 * s["poses"] + 40))


def skin(s: Sizes) -> Count:
    return Count(4 * s["vertices"] * (6 * s["poses"] + s["joints"]))


def skin_vertices(s: Sizes) -> Count:
    blocks = s["poses"] * math.ceil(s["vertices"] / 128)
    return Count(4 * s["vertices"] * (9 * s["poses"] + s["joints"]) + 4 * blocks * (12 * s["joints"] + 3))


def loss_forward(s: Sizes) -> Count:
    return Count(12 * s["numbers"], round(LOSS_INSTRUCTIONS / 2 / 0.84 * s["numbers"] / 32))


def loss_backward(s: Sizes) -> Count:
    return Count(16 * s["numbers"])


def adam(s: Sizes) -> Count:
    return Count(28 * s["parameters"])


def mesh_setup(s: Sizes) -> Count:
    return Count(s["cameras"] * s["faces"] * (24 + 36 + SCREEN_TRIANGLE))


def mesh_draw(s: Sizes) -> Count:
    """A covered pixel once, though triangles behind each other ask for it more often."""
    return Count(s["cameras"] * s["faces"] * SCREEN_TRIANGLE + 8 * s["covered"])


def mesh_resolve(s: Sizes) -> Count:
    return Count(_pixels(s) * (8 + 4 + 12 + 4))


def mesh_triangles(s: Sizes) -> Count:
    return Count(s["covered"] * (4 + 12 + 12 + 4) + s["cameras"] * s["faces"] * (8 + 24 + 36 + 72))


def interpolate(s: Sizes) -> Count:
    return Count(_pixels(s) * (4 + 4 * s["channels"]) + 12 * s["covered"])


def interpolate_barycentrics(s: Sizes) -> Count:
    return Count(_pixels(s) * (4 + 12) + 4 * s["channels"] * s["covered"])


def interpolate_triangles(s: Sizes) -> Count:
    return Count(s["covered"] * (4 + 12 + 4 * s["channels"]) + s["cameras"] * s["faces"] * (8 + 24 * s["channels"]))


def keys(s: Sizes) -> Count:
    return Count(8 * _pixels(s))


# Kernel names, and what they count as. The two sorts share the lists between them, and so do the two of blending: a line each.
COUNTS: dict[str, tuple[str, Callable[[Sizes], Count]]] = {
    "project_gaussians": ("project_gaussians", project),
    "count_pairs": ("count_pairs", count_pairs),
    "sum_counts": ("sum_counts", sum_counts),
    "emit_pairs": ("emit_pairs", emit_pairs),
    **dict.fromkeys(("sort_lists", "sort_short_lists", "sort_long_lists"), ("sort_lists, sort_long_lists", sort_lists)),
    **dict.fromkeys(("blend_tiles", "blend_pieces"), ("blend_tiles", blend)),
    "clear_sums": ("clear_sums", clear_sums),
    "blend_bucket_vjp": ("blend_bucket_vjp", blend_vjp),
    "sum_pairs": ("sum_pairs", sum_pairs),
    "project_gaussians_vjp": ("project_gaussians_vjp", project_vjp),
    "bind_fwd_kernel": ("bind_fwd_kernel", bind),
    "bind_local_kernel": ("bind_local_kernel", bind_local),
    "skin_fwd_kernel": ("skin_fwd_kernel", skin),
    "skin_vertices_kernel": ("skin_vertices_kernel", skin_vertices),
    "photometric_fwd_kernel": ("photometric_fwd_kernel", loss_forward),
    "photometric_bwd_kernel": ("photometric_bwd_kernel", loss_backward),
    "adam_update_kernel": ("adam_update_kernel", adam),
    "mesh_setup_kernel": ("mesh_setup_kernel", mesh_setup),
    "mesh_draw_kernel": ("mesh_draw_kernel", mesh_draw),
    "mesh_resolve_kernel": ("mesh_resolve_kernel", mesh_resolve),
    "mesh_keys_kernel": ("mesh_keys_kernel", keys),
    "mesh_triangles_kernel": ("mesh_triangles_kernel", mesh_triangles),
    "interpolate_fwd_kernel": ("interpolate_fwd_kernel", interpolate),
    "interpolate_barycentrics_kernel": ("interpolate_barycentrics_kernel", interpolate_barycentrics),
    "interpolate_keys_kernel": ("interpolate_keys_kernel", keys),
    "interpolate_triangles_kernel": ("interpolate_triangles_kernel", interpolate_triangles),
}


def kernel_name(signature: str) -> str:
    """`blend_tiles` of `void gaf::cuda::(anonymous namespace)::blend_tiles<3>(gaf::cuda::BlendPass, bool)`; "" where it is not ours."""
    found = re.search(r"gaf::cuda::(?:\(anonymous namespace\)::|<unnamed>::)?(\w+)\s*[<(]", signature)
    return found[1] if found else ""


def count(kernel: str, sizes: Sizes) -> tuple[str, Count] | None:
    """The line that a kernel belongs to, and its count; None where there is none, or where a size that it needs is not known."""
    if kernel not in COUNTS:
        return None
    line, formula = COUNTS[kernel]
    try:
        return line, formula(sizes)
    except KeyError:
        return None
