"""Hair as a thicker scalp: rigs are bald, heads are not.

Gaussians keep near their triangles, so the triangles should be near the hair. How far it stands off is read from the masks: every
vertex of the scalp moves out along its normal until the mesh's outline meets the masks', smoothly in between and towards a plain
guess where no outline ever showed it. The move is the rig's static offset, as in VHAP, so it turns with the head and thresholds in
triangle sizes keep their meaning.

A linear least-squares problem in the scalp's thickness, solved again a few times because the outline moves over the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from gafcore.avatars.frames import checked_mask
from gafcore.avatars.outline import outline
from gafcore.mesh import vertex_normals
from gafcore.rigs import Rig
from gafcore.types import Camera, Capture, Frame, RigParams

_ROUNDS = 8
_ROBUST_FROM = 4  # rounds before are about distance, rounds from here on about agreement
_RIM_M = 0.027  # the hairline is a slope of about this width, not a step
_REACH_M = 0.06  # how far from the mesh the edge of the mask is looked for
_TRIM_M = (-0.014, 0.028)  # one outline pixel asks for no more than this in a round
_HUBER_M = 0.0055
_INWARD = 4.0  # a mask that ends inside the mesh is certain; one that goes on may show hair from elsewhere
_LIMITS_M = (-0.005, 0.05)
_UNIT_M = 0.0007  # one observation for so much outline, at any resolution
_SMOOTHNESS = 0.025  # of the thickness over the mesh
_PRIOR = 0.0006  # pull to the guess, for a vertex of `_AREA_M2`
_AREA_M2 = 2.5e-5
_GUESS_QUANTILE = 0.25  # of the thicknesses that outlines showed: what is hidden behind is rather flat
_BALD_M = 0.002


def with_hair(capture: Capture, frames: Sequence[Frame]) -> RigParams:
    """The capture's rig parameters with the scalp at the hair's surface; unchanged where rig or masks say nothing about it."""
    masked = [(frame, mask) for frame in frames if (mask := checked_mask(frame)) is not None]
    scalp = _scalp(capture.rig, capture.params)
    if scalp is None or not masked:
        return capture.params
    thickness, guess = np.zeros(len(scalp.vertices)), 0.0
    for step in range(_ROUNDS):
        params = _offset(capture.params, scalp.offset(thickness))
        rows = [_observe(scalp, capture.rig, params, frame, mask) for frame, mask in masked]
        a, asked = sparse.vstack([r[0] for r in rows]).tocsr(), np.concatenate([r[1] for r in rows])
        weight = np.concatenate([np.full(len(r[1]), r[2]) for r in rows]) * np.where(asked < 0, _INWARD, 1.0) / len(masked)
        if step >= _ROBUST_FROM:
            weight = weight * np.minimum(1, _HUBER_M / np.maximum(np.abs(asked), 1e-9))
        thickness = scalp.solve(a, asked + a @ thickness, weight, guess)
        shown = np.asarray(abs(a).sum(0)).ravel() > 0
        guess = max(0.0, float(np.quantile(thickness[shown], _GUESS_QUANTILE))) if shown.any() else 0.0
    moved = (thickness * scalp.weight[scalp.vertices].numpy())[shown]
    bald = len(moved) == 0 or float(np.quantile(moved, 1 - _GUESS_QUANTILE)) < _BALD_M
    return capture.params if bald else _offset(capture.params, scalp.offset(thickness))


@dataclass(frozen=True)
class _Scalp:
    """The M vertices that may move."""

    vertices: Int[Tensor, "M"]
    number: Int[Tensor, "V"]  # of each vertex of the rig in `vertices`, or -1
    weight: Float[Tensor, "V"]  # 1 on the scalp, fading out over its rim
    direction: Float[Tensor, "V 3"]  # outward normal at rest times weight
    stiffness: sparse.csr_matrix  # [M, M] energy of the differences along edges
    area: Float[np.ndarray, "M"]  # of each vertex, in units of `_AREA_M2`

    def offset(self, thickness: np.ndarray) -> Float[Tensor, "V 3"]:
        full = self.direction.new_zeros(len(self.number))
        full[self.vertices] = torch.from_numpy(thickness).to(full)
        return full[:, None] * self.direction

    def solve(self, a: sparse.csr_matrix, wanted: np.ndarray, weight: np.ndarray, guess: float) -> np.ndarray:
        """The smooth thickness that agrees best with `a @ thickness = wanted`, metres."""
        weighted = a.T @ sparse.diags(weight)
        prior = _PRIOR * self.area
        system = weighted @ a + _SMOOTHNESS * self.stiffness + sparse.diags(prior)
        return splu(system.tocsc()).solve(weighted @ wanted + prior * guess).clip(*_LIMITS_M)


def _scalp(rig: Rig, params: RigParams) -> _Scalp | None:
    """None where the rig names no scalp."""
    region = rig.regions.get("scalp")
    if region is None or not bool(region.any()):
        return None
    edges = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]])
    edges = torch.unique(edges.sort(1).values, dim=0)
    rest = rig.vertices(replace(rig.neutral(1), shape=params.shape, static_offset=params.static_offset))[0]
    edge_m = float((rest[edges[:, 0]] - rest[edges[:, 1]]).norm(dim=-1)[region[edges].all(1)].mean())
    rounds = max(1, round((_RIM_M / edge_m) ** 2))  # averaging over neighbours spreads like heat: with the square root of the rounds
    weight = _faded(region.to(rig.template.dtype), edges, rig.regions.get("ears"), rounds)
    vertices = torch.nonzero(weight > 0.02)[:, 0]
    number = torch.full((rig.n_vertices,), -1)
    number[vertices] = torch.arange(len(vertices))
    ends = number[edges]
    pairs = ends[(ends >= 0).all(1)].numpy()
    n = np.arange(len(pairs))
    differences = sparse.coo_matrix(
        (np.repeat([1.0, -1.0], len(pairs)), (np.tile(n, 2), pairs.T.ravel())), shape=(len(pairs), len(vertices))
    ).tocsr()
    corners = rest[rig.faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 6
    area = rest.new_zeros(rig.n_vertices).index_add_(0, rig.faces.flatten(), areas.repeat_interleave(3))
    return _Scalp(
        vertices=vertices,
        number=number,
        weight=weight,
        direction=weight[:, None] * vertex_normals(rest, rig.faces),
        stiffness=differences.T @ differences,
        area=area[vertices].double().numpy() / _AREA_M2,
    )


def _faded(weight: Float[Tensor, "V"], edges: Int[Tensor, "E 2"], still: Tensor | None, rounds: int) -> Float[Tensor, "V"]:
    """The mean over a vertex' neighbours, `rounds` times; `still` vertices keep zero."""
    both = torch.cat([edges, edges.flip(1)])
    degree = torch.zeros_like(weight).index_add_(0, both[:, 0], weight.new_ones(len(both))).clamp(min=1)
    for _ in range(rounds):
        weight = torch.zeros_like(weight).index_add_(0, both[:, 0], weight[both[:, 1]]) / degree
        if still is not None:
            weight = weight.masked_fill(still, 0.0)
    return weight


def _observe(scalp: _Scalp, rig: Rig, params: RigParams, frame: Frame, mask: Tensor) -> tuple[sparse.csr_matrix, np.ndarray, float]:
    """One row an outline pixel: how the thickness moves it along its normal, how far it should move (metres), and what a row counts."""
    camera = frame.camera
    vertices = rig.vertices(params[frame.timestep])[0]
    per_m = float(camera.K[0, 0]) / float((vertices @ camera.viewmat[2, :3]).mean() + camera.viewmat[2, 3])  # px a metre on the head
    found = outline(vertices, rig.faces, camera, mask, _REACH_M * per_m)
    corners = rig.faces[found.faces]
    found, corners = found[on := (scalp.number[corners] >= 0).any(1)], corners[on]
    motion = _pixel_motion(vertices, vertex_normals(vertices, rig.faces) * scalp.weight[:, None], camera)
    gain = (motion[corners] * found.normals[:, None]).sum(-1) * found.barycentrics / per_m  # [K, 3]
    moving = scalp.number[corners] >= 0
    rows = torch.arange(len(corners))[:, None].expand(-1, 3)[moving].numpy()
    a = sparse.coo_matrix(
        (gain[moving].double().numpy(), (rows, scalp.number[corners][moving].numpy())), shape=(len(corners), len(scalp.vertices))
    )
    asked = (found.gaps_px.double() / per_m).clamp(*_TRIM_M).numpy()
    return a.tocsr(), asked, 1 / (_UNIT_M * per_m)


def _pixel_motion(points: Float[Tensor, "V 3"], velocity: Float[Tensor, "V 3"], camera: Camera) -> Float[Tensor, "V 2"]:
    """How projections move, px, when world points move with `velocity`."""
    rotation = camera.viewmat[:3, :3].to(points)
    x, y, z = (points @ rotation.T + camera.viewmat[:3, 3]).unbind(-1)
    vx, vy, vz = (velocity @ rotation.T).unbind(-1)
    return torch.stack([camera.K[0, 0] * (vx - vz * x / z) / z, camera.K[1, 1] * (vy - vz * y / z) / z], -1)


def _offset(params: RigParams, offset: Float[Tensor, "V 3"]) -> RigParams:
    return replace(params, static_offset=offset if params.static_offset is None else params.static_offset + offset)
