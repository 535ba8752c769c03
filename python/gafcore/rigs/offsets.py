"""A person's own vertex offsets, put on a rig that is already posed."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.types import RigParams


def with_static_offset(rig: Rig, params: RigParams, offset: Float[Tensor, "V 3"] | None) -> RigParams:
    """The same poses with `offset` as static offset; what it does not move stays where it was.

    Joints follow the offset (FLAME's order), so alone it would also change what the head turns about: hair behind the neck moves the root
    by centimetres, and a face that was tracked then slips by millimetres as the head turns. The translations take that back,
    exactly for everything that follows the head.

    Args:
        rig: What `params` pose.
        params: B timesteps; an offset that they already have is replaced.
        offset: Metres, at rest; differentiable, but for the translations. None for none.
    """
    new = replace(params, static_offset=offset)
    with torch.no_grad():
        still = _still(rig, params.static_offset, offset)
        if len(still) == 0:
            return new
        slip = (rig.vertices(params, still) - rig.vertices(new, still)).median(1).values  # some may hang on other joints too
    return replace(new, translation=params.translation + slip)


def _still(rig: Rig, old: Tensor | None, new: Tensor | None) -> Tensor:
    """Vertices that the offsets leave alone: the face's, where the rig names one."""
    none = rig.template.new_zeros(rig.n_vertices, 3)
    alone = ((none if old is None else old) == (none if new is None else new)).all(1)
    face = rig.regions.get("face")
    if face is not None and bool((alone & face).any()):
        alone &= face
    return torch.nonzero(alone)[:, 0]
