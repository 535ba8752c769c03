"""Where a rig may be wearing hair: on its scalp, and hanging beside and behind its neck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.mesh import vertex_normals
from gafcore.rigs import Rig
from gafcore.rigs.joints import smoothstep
from gafcore.types import RigParams

_SMOOTHING = 4  # rounds of averaging over neighbours: the hairline is a slope, not a step
_TURNING = 6  # the same for directions: scalp and neck meet at an edge
_THROAT_DEG, _NAPE_DEG = 60.0, 90.0  # about the neck's axis, from the front: no hair grows over a throat


@dataclass(frozen=True)
class HairRegion:
    """The R vertices that hair may cover.

    Attributes:
        vertices: Which they are.
        edges: Between them, both ways, as places in `vertices`.
        edge_m: Mean length of these, metres.
        direction: Outward at rest; 1 long where hair may be, fading to 0 over the rim, 0 elsewhere.
        scalp: The same of the scalp alone.
        on_scalp: 1 on the scalp, fading out over its rim; 0 on the neck.
    """

    vertices: Int[Tensor, "R"]
    edges: Int[Tensor, "E 2"]
    edge_m: float
    direction: Float[Tensor, "V 3"]
    scalp: Float[Tensor, "V 3"]
    on_scalp: Float[Tensor, "R"]

    def offset(self, distance: Float[Tensor, "R"]) -> Float[Tensor, "V 3"]:
        """Every vertex moved out by its distance, metres."""
        return torch.zeros_like(self.direction[:, 0]).index_copy(0, self.vertices, distance)[:, None] * self.direction


def hair_region(rig: Rig, params: RigParams) -> HairRegion | None:
    """The region on this person; None where the rig names no scalp."""
    scalp = rig.regions.get("scalp")
    if scalp is None or not bool(scalp.any()):
        return None
    edges = _edges(rig)
    rest = rig.vertices(replace(rig.neutral(1), shape=params.shape, static_offset=params.static_offset))[0]
    normals = vertex_normals(rest, rig.faces)
    on_scalp = neighbours_mean(scalp.to(rest.dtype), edges, _SMOOTHING)
    neck = rig.regions.get("neck")
    if neck is None or not bool(neck.any()):
        weight, towards = on_scalp, normals
    else:
        weight = neighbours_mean(torch.maximum(scalp.to(rest.dtype), neck * _behind(rest, neck)), edges, _SMOOTHING)
        towards = torch.where((neck & ~scalp)[:, None], normals * normals.new_tensor([1.0, 0.0, 1.0]), normals)
        towards = torch.nn.functional.normalize(towards, dim=-1)
        averaged = neighbours_mean(towards, edges, _TURNING)
        towards = torch.nn.functional.normalize(torch.where((weight > 0)[:, None], averaged, towards), dim=-1)
    vertices = torch.nonzero(weight > 0)[:, 0]
    place = torch.full_like(weight, -1, dtype=torch.int64)
    place[vertices] = torch.arange(len(vertices), device=place.device)
    inside = place[edges][(place[edges] >= 0).all(1)]
    ends = rest[vertices][inside]
    length = float((ends[:, 0] - ends[:, 1]).norm(dim=-1).mean()) if len(inside) else 1.0
    return HairRegion(vertices, inside, length, weight[:, None] * towards, on_scalp[:, None] * normals, on_scalp[vertices])


def _behind(rest: Float[Tensor, "V 3"], neck: Tensor) -> Float[Tensor, "V"]:
    """0 at the throat, 1 at the sides of the neck and behind."""
    azimuth = torch.atan2(rest[:, 0].abs(), rest[:, 2] - rest[neck, 2].mean()).rad2deg()
    return torch.from_numpy(smoothstep(azimuth.cpu().numpy(), _THROAT_DEG, _NAPE_DEG)).to(rest)


def _edges(rig: Rig) -> Int[Tensor, "E 2"]:
    """Every edge once each way."""
    edges = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]])
    keys = torch.unique(torch.cat([edges, edges.flip(1)]) @ edges.new_tensor([rig.n_vertices, 1]))  # far faster than unique rows
    return torch.stack([keys // rig.n_vertices, keys % rig.n_vertices], -1)


def neighbours_mean(values: Tensor, edges: Int[Tensor, "E 2"], rounds: int) -> Tensor:
    """The mean of the neighbours, so many times over."""
    degree = values.new_zeros(len(values)).index_add_(0, edges[:, 0], values.new_ones(len(edges))).clamp(min=1)
    degree = degree.view(-1, *(1,) * (values.dim() - 1))
    for _ in range(rounds):
        values = torch.zeros_like(values).index_add_(0, edges[:, 0], values[edges[:, 1]]) / degree
    return values
