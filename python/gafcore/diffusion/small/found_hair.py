"""What a fit finds of a person's hair: the static offset of `avatars/hair.py`, without fitting anybody.

Most styles leave one thickness of the whole scalp. Hanging hair is found vertex by vertex: near the truth on average over a person, and
off by a smooth error, for most of it is inside the outlines that a fit sees.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gafcore.avatars.hair_region import hair_region, neighbours_mean
from gafcore.captures.synthetic.hair import grow_hair
from gafcore.captures.synthetic.look import Look
from gafcore.captures.synthetic.noise import Noise3, generator
from gafcore.rigs.base import Rig
from gafcore.types import RigParams

# One thickness of the scalp, metres (avatars/hair.py on thirty people, whatever the length of their hair).
_THICKNESS_M = {"bald": 0.0, "buzz": 0.001, "short": 0.0125, "curly": 0.039, "bun": 0.005}
_THICKNESS_STEP_M = 0.0025  # of the fit's search: what it finds is off by about so much
# Hanging hair, on twelve people with bobs and sixteen with long hair: the found distance is the true one times 0.95 (0.95 and 0.97), with
# a correlation of 0.56 over vertices and 0.8-0.9 over people's means, and off by 9-10 mm. Some of that is the error of this estimate; what
# counts is that colours carried through either rig are as wrong (on eight each: bob 16.0 dB found, 15.9 here; long 15.9, 15.5).
HANGING = ("bob", "long")
_ERROR_M, _ERROR_WAVE_M = 0.007, 0.08
_MOST_M = 0.06  # the fit's own limit
_RAY_M = 0.008  # hair so near a vertex's normal is over it
_LOOKED_AT = 4000  # of the hair's vertices
DETAIL = 0.25  # of hair and shadows: enough for 64 pixels, and three times as fast
_ROUNDS = 4  # of averaging over neighbours
_NOISE_STD = 0.34  # of `Noise3`


def found_offset(
    rig: Rig, tracked: RigParams, truth: RigParams, look: Look, seed: int, *, length: float, chance: float, worse: float
) -> Float[Tensor, "V 3"]:
    """The offset that a fit would put on the tracked rig, metres.

    Args:
        rig: The head's, with a region "scalp".
        tracked: The rig as it is tracked: which way is out.
        truth: Whose hair it is.
        look: Style.
        seed: The person's.
        length: Of the hair, relative to the style's.
        chance: Normally distributed: by how much the thickness is off.
        worse: 0..1, how badly the person is tracked.
    """
    region = hair_region(rig, tracked)
    assert region is not None
    if look.hair_style in HANGING:
        return region.offset(_hanging(rig, truth, look, seed, length)[region.vertices])
    thickness = _THICKNESS_M[look.hair_style]
    error = 0.5 * _THICKNESS_STEP_M + worse * 0.08 * thickness
    return max(0.0, thickness + error * chance) * region.scalp


def _hanging(rig: Rig, truth: RigParams, look: Look, seed: int, length: float) -> Float[Tensor, "V"]:
    """A distance for every vertex, 0 outside the region, which is another one on another shape of the neck."""
    still = replace(rig.neutral(1), shape=truth.shape)
    rest, region = rig.vertices(still)[0], hair_region(rig, still)
    assert region is not None
    hair = grow_hair(rig, rest, look, seed, detail=DETAIL, length=length).vertices
    distance = _above(rest[region.vertices], normalize(region.direction[region.vertices], dim=-1), hair[:: max(1, len(hair) // _LOOKED_AT)])
    distance = neighbours_mean(distance, region.edges, _ROUNDS)
    noise = Noise3(generator(seed, "found hair"))(rest[region.vertices], _ERROR_WAVE_M)
    found = (0.95 * distance + _ERROR_M / _NOISE_STD * noise).clamp(0, _MOST_M)
    return rest.new_zeros(rig.n_vertices).index_copy(0, region.vertices, found)


def _above(points: Float[Tensor, "R 3"], normals: Float[Tensor, "R 3"], hair: Float[Tensor, "H 3"]) -> Float[Tensor, "R"]:
    """How far out hair reaches along each normal, metres; 0 where there is none."""
    along = normals @ hair.T - (normals * points).sum(-1, keepdim=True)
    apart = points.square().sum(-1, keepdim=True) + hair.square().sum(-1) - 2 * points @ hair.T - along.square()
    over = (apart < _RAY_M**2) & (along > 0) & (along < _MOST_M)
    return torch.where(over, along, 0.0).amax(1)
