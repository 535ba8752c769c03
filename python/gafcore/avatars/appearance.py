"""The avatar before fitting: colours from the training pictures where a triangle was seen, and guesses where it was not.

One camera leaves much of a head unseen, and no loss will ever move what is hidden. So what starts there must already look right from
the side: opaque, thin along the surface, and coloured like its mirror image or the nearest triangle that was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from gafcore.avatars.frames import checked_image, checked_mask
from gafcore.avatars.hair import with_hair
from gafcore.avatars.rigged import RiggedAvatar, init_avatar
from gafcore.mesh import rasterize
from gafcore.rigs import Rig
from gafcore.types import Capture, Frame, RigParams

_SAMPLED_FRAMES = 24  # enough to catch what a turning head shows, in about a second
_OUTLINE_FRAMES = 96  # for the shape of the hair
_MIN_MASK = 0.9  # pixels on the rim of the mask are mixed with the background
_NEIGHBOURS = 8  # seen triangles that a hidden one takes its colour from
_PAIRS = 1 << 24  # of faces compared at a time on a GPU: 128 MB of doubles
_MIRROR_TOLERANCE = 0.02  # metres from a triangle's reflection to its counterpart; heads and their meshes are nearly symmetric
_DISC = (0.4, 0.05, 0.4)  # along the first edge, the normal and their cross product, in triangle sizes


def initial_avatar(capture: Capture, numbers: tuple[int, ...], *, opacity: float = 0.9, sh_degree: int = 0) -> RiggedAvatar:
    """One Gaussian a face, coloured from the frames `numbers` of `capture`.

    All start as nearly opaque discs in the plane of their triangle, so that the first render already is a textured mesh from every side
    (GaussianAvatars' faint balls as large as the triangle leave a fog where training does not look; docs/fitting.md has the figures).
    """
    rig = capture.rig
    discs = torch.tensor(_DISC, device=rig.template.device).log().expand(rig.faces.shape[0], 3)

    def first(params: RigParams) -> RiggedAvatar:
        return init_avatar(rig, params, opacity=opacity, log_scales=discs)

    outlines = [capture.frames[i] for i in _spread(numbers, _OUTLINE_FRAMES)]
    capture = replace(capture, params=with_hair(capture, outlines, first))
    colors, seen = seen_colors(capture, [capture.frames[i] for i in _spread(numbers, _SAMPLED_FRAMES)])
    colors = complete_colors(rig, colors, seen)
    return init_avatar(rig, capture.params, colors, opacity=opacity, log_scales=discs, sh_degree=sh_degree)


def seen_colors(capture: Capture, frames: list[Frame]) -> tuple[Float[Tensor, "F 3"], Bool[Tensor, "F"]]:
    """Mean colour of the pixels that show each face, and which faces were shown at all."""
    rig = capture.rig
    total = rig.template.new_zeros(rig.faces.shape[0], 4)
    for frame in frames:
        vertices = rig.vertices(capture.params[frame.timestep])
        ids = rasterize(vertices, rig.faces, frame.camera).triangle_ids[0]
        shown = ids >= 0
        mask = checked_mask(frame)
        if mask is not None:
            shown &= mask > _MIN_MASK
        pixels = torch.cat([checked_image(frame)[shown], total.new_ones(int(shown.sum()), 1)], dim=1)
        total.index_add_(0, ids[shown].long(), pixels)
    seen = total[:, 3] > 0
    return total[:, :3] / total[:, 3:].clamp(min=1), seen


def complete_colors(rig: Rig, colors: Float[Tensor, "F 3"], seen: Bool[Tensor, "F"]) -> Float[Tensor, "F 3"]:
    """Colours for the faces not seen: the mirror image's if that was seen, else a blend of the nearest seen ones of the same region.

    On a GPU by comparing all faces with all, which needs no tree on the host and waits for nothing; the same colours but for rounding.
    """
    if colors.device.type != "cpu":
        return _completed_densely(rig, colors, seen)
    if not bool(seen.any()):
        return torch.full_like(colors, 0.5)
    centres = rig.template[rig.faces].mean(1).double().numpy()
    known, rgb = seen.numpy().copy(), colors.double().numpy().copy()
    twins = mirror_faces(centres)
    usable = ~known & (twins >= 0) & known[twins]
    rgb[usable] = rgb[twins[usable]]
    known |= usable
    labels = face_regions(rig).numpy()
    for label in np.unique(labels[~known]):
        here = labels == label
        source = known & here if (known & here).any() else known
        wanted = here & ~known
        k = min(_NEIGHBOURS, int(source.sum()))
        distance, nearest = cKDTree(centres[source]).query(centres[wanted], k=k)
        distance, nearest = distance.reshape(-1, k), nearest.reshape(-1, k)
        weight = 1 / (distance + 1e-4)
        rgb[wanted] = (rgb[source][nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True)
    return torch.from_numpy(rgb).to(colors)


def _completed_densely(rig: Rig, colors: Float[Tensor, "F 3"], seen: Bool[Tensor, "F"]) -> Float[Tensor, "F 3"]:
    """`complete_colors` without shapes that depend on what was seen."""
    centres, labels = rig.template[rig.faces].mean(1).double(), face_regions(rig)
    distance, twins = _nearest(torch.cat([-centres[:, :1], centres[:, 1:]], 1), centres, 1)
    usable = ~seen & (distance[:, 0] < _MIRROR_TOLERANCE) & seen[twins[:, 0]]
    rgb, known = torch.where(usable[:, None], colors[twins[:, 0]], colors).double(), seen | usable

    def lends(rows: slice) -> Bool[Tensor, "R F"]:
        alike = known & (labels[rows, None] == labels)
        return alike | (known & ~alike.any(1, keepdim=True))

    distance, nearest = _nearest(centres, centres, min(_NEIGHBOURS, len(centres)), lends)
    weight = 1 / (distance + 1e-4)
    blend = (rgb[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
    return torch.where(seen.any(), torch.where(known[:, None], rgb, blend), 0.5).to(colors)


def _nearest(
    points: Float[Tensor, "P 3"], centres: Float[Tensor, "F 3"], k: int, allowed: Callable[[slice], Tensor] | None = None
) -> tuple[Float[Tensor, "P k"], Int[Tensor, "P k"]]:
    """Distances and numbers of the `k` of `centres` nearest to each point; infinity where fewer are `allowed`, given a slice of points."""
    found, at_once = [], max(1, _PAIRS // len(centres))
    for rows in (slice(i, i + at_once) for i in range(0, len(points), at_once)):
        squares = torch.addmm(centres.square().sum(1), points[rows], centres.T, alpha=-2) + points[rows].square().sum(1, keepdim=True)
        order = squares.float()  # topk looks at every bit of a number: at a quarter of the bytes
        least, numbers = (order if allowed is None else order.masked_fill_(~allowed(rows), torch.inf)).topk(k, largest=False)
        apart = (points[rows, None] - centres[numbers]).norm(dim=-1)
        found.append((torch.where(least == torch.inf, torch.inf, apart), numbers))
    return torch.cat([d for d, _ in found]), torch.cat([n for _, n in found])


def mirror_faces(centres: np.ndarray) -> np.ndarray:
    """The face nearest to each face's reflection across x = 0, or -1 where none is near. [F] of [F, 3] centroids."""
    distance, nearest = cKDTree(centres).query(centres * (-1, 1, 1))
    return np.where(distance < _MIRROR_TOLERANCE, nearest, -1)


def face_regions(rig: Rig) -> Int[Tensor, "F"]:
    """One label a face: a bit for each of the rig's regions that holds all its vertices. Eyes do not lend their colour to lids."""
    labels = torch.zeros(rig.faces.shape[0], dtype=torch.int64, device=rig.faces.device)
    for bit, name in enumerate(sorted(rig.regions)):
        labels |= rig.regions[name][rig.faces].all(1).long() << bit
    return labels


def _spread(numbers: tuple[int, ...], n: int) -> list[int]:
    """At most `n` of `numbers`, evenly spaced, first and last included."""
    places: Int[Tensor, "n"] = torch.linspace(0, len(numbers) - 1, min(n, len(numbers))).round().long()
    return [numbers[i] for i in places.tolist()]
