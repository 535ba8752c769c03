"""Bundle adjustment: every frame's head pose and the points of the head that were followed (`keypoints.py`), together.

Landmarks mistake a part of an expression for a nod, and the face's texture is seen from too near to the neck to correct all of it. Points
of hair and skin on one rigid head, with places of their own, leave a fraction of that: docs/tracking.md has the figures. Points of the
face stay near the rig's surface, else the rig's relief and the size of its turns could be exchanged (the bas-relief ambiguity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import Detections
from gafcore.tracking.keypoints import Tracks, face_px, follow_points
from gafcore.tracking.solve import Solution, one_thread, solve_with_poses

_ROUNDS, _OVER = 12, 1.7  # moves go further than where their own half of the unknowns would stop: over-relaxation
_FEWEST_FRAMES = 5  # of a shot: fewer say nothing about depth
_TUKEY = 0.01  # in face sizes: an error of this size has half its weight
_ERROR = 0.01  # of a point's place in the picture, in face sizes, one standard deviation; neighbours err together
_SKIN_M, _HAIR_M = 0.0005, 0.015  # how far points are from where they start
_SIGMA = (math.radians(1.0), math.radians(1.0), math.radians(0.6), 0.003, 0.003, 0.02)  # of the poses before; pitch, yaw, roll; x, y, depth
_LEFT = (*(math.radians(0.1),) * 3, 0.0002, 0.0002, 0.003)  # ... and after, for the landmarks' last word

_TRUST = 1.4  # in landmarks, once they no longer decide about the pose


def adjust(clip: Clip, detections: Detections, rig: Rig, solution: Solution) -> Solution:
    """`solution` with every found frame's rotation and translation adjusted, shot by shot, and the expressions fitted again."""
    if "face" not in rig.regions or "neck" not in rig.regions:
        return solution
    params = solution.params
    with one_thread():
        turn = axis_angle_to_matrix(params.rotation.double())
        root = rig.rest_joints(params)[:, 0].double()
        shift = root + params.translation.double() - (turn @ root[..., None])[..., 0]
        starts = [0, *detections.cuts, len(detections)]
        for begin, end in pairwise(starts):
            frames = [t for t in range(begin, end) if bool(detections.found[t])]
            if len(frames) < _FEWEST_FRAMES:
                continue
            tracks = follow_points(clip, detections, rig, solution, frames, turn, shift)
            lens = _Lens(solution.focal_px, detections.width / 2, detections.height / 2, face_px(detections, frames))
            turn[frames], shift[frames] = adjust_poses(tracks, turn[frames], shift[frames], lens)
        translation = shift - root + (turn @ root[..., None])[..., 0]
    rotation = torch.from_numpy(Rotation.from_matrix(turn.numpy()).as_rotvec())
    return solve_with_poses(solution, rotation, translation, _LEFT, steps=2, key_steps=4, trust=_TRUST)


@dataclass(frozen=True)
class _Lens:
    focal_px: float
    cx: float
    cy: float
    face_px: float  # what errors are measured in


def adjust_poses(
    tracks: Tracks, turn: Float[Tensor, "T 3 3"], shift: Float[Tensor, "T 3"], lens: _Lens
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 3"]]:
    """Poses under which the tracks are those of rigid points. Points and poses move by Gauss-Newton in turn, all of each at once."""
    points, near = tracks.start.clone(), tracks.near
    point_precision = torch.where(tracks.skin, _SKIN_M, _HAIR_M)[..., None].double() ** -2
    prior, moved = torch.tensor(_SIGMA).double() ** -2, turn.new_zeros(len(turn), 6)
    pivot = points[tracks.skin].mean(0) - torch.tensor([0.0, 0.0, 0.04]).double()
    for _ in range(_ROUNDS):
        # The points, with the poses as they are.
        error, weight, by_place = _errors(points[near], turn, shift, tracks, lens)
        by_point = by_place @ turn[:, None, None]  # [T, N, P, 2, 3]
        weighted = by_point * weight[..., None, None]
        system, right = points.new_zeros(*points.shape, 3), point_precision * (tracks.start - points)
        system.index_add_(0, near.flatten(), (weighted.mT @ by_point).flatten(0, 1))
        right.index_add_(0, near.flatten(), -(weighted.mT @ error[..., None])[..., 0].flatten(0, 1))
        system.diagonal(dim1=-2, dim2=-1).add_(point_precision)
        points = points + _OVER * torch.linalg.solve(system, right)
        # The poses, with the points as they are.
        error, weight, by_place = _errors(points[near], turn, shift, tracks, lens)
        centre = (turn @ pivot) + shift
        arm = (points[near].flatten(1, 2) @ turn.mT + (shift - centre)[:, None])[:, :, None].expand(-1, -1, 2, -1)
        by_place = by_place.flatten(1, 2)
        by_pose = torch.cat([torch.linalg.cross(arm, by_place), by_place], -1).flatten(1, 2)  # [T, N P 2, 6]
        weighted = by_pose * weight.flatten(1).repeat_interleave(2, 1)[..., None]
        step = _OVER * torch.linalg.solve(
            weighted.mT @ by_pose + torch.diag(prior), -(weighted.mT @ error.flatten(1)[..., None])[..., 0] - prior * moved
        )
        moved = moved + step
        rotation = axis_angle_to_matrix(step[:, :3])
        shift = (rotation @ (shift - centre)[..., None])[..., 0] + centre + step[:, 3:]
        turn = rotation @ turn
    return turn, shift


def _errors(points: Tensor, turn: Tensor, shift: Tensor, tracks: Tracks, lens: _Lens) -> tuple[Tensor, Tensor, Tensor]:
    """Projected minus seen, in face sizes [T, N, P, 2]; weights [T, N, P]; derivatives by the place in camera space [T, N, P, 2, 3]."""
    place = (points.flatten(1, 2) @ turn.mT + shift[:, None]).unflatten(1, points.shape[1:3])
    x, y, z = place.unbind(-1)
    seen = (tracks.pixels - tracks.pixels.new_tensor([lens.cx, lens.cy])) / lens.face_px
    focal, zero = lens.focal_px / lens.face_px, torch.zeros_like(z)
    error = torch.stack([-focal * x / z, focal * y / z], -1) - seen
    weight = tracks.seen / (_ERROR**2 * (1 + error.square().sum(-1) / _TUKEY**2))
    by_place = focal * torch.stack([torch.stack([-1 / z, zero, x / z**2], -1), torch.stack([zero, 1 / z, -y / z**2], -1)], -2)
    return torch.where(tracks.seen[..., None], error, 0.0), weight, by_place
