"""Bundle adjustment: every frame's head pose and the points of the head that were followed (`keypoints.py`), together.

Landmarks mistake a part of an expression for a nod: on expressive.mp4 they leave points of the hair's crown five pixels off. Points of hair
and skin on one rigid head, each with a place of its own, have half of that: docs/tracking.md has the figures. Then the landmarks are
fitted once more with these poses, so that identity and expressions no longer make up for what was the pose.

Points of the skin stay near the rig's surface, else relief and the size of turns could be exchanged (the bas-relief ambiguity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.rigs.base import Rig
from gafcore.tracking.detections import Detections
from gafcore.tracking.keypoints import Tracks, face_size, follow_points
from gafcore.tracking.poses import Poses, poses_of, rotation_and_translation, turned
from gafcore.tracking.solve import Solution, solve_with_poses
from gafcore.tracking.threads import one_thread, side_by_side

_ROUNDS, _OVER = (
    12,
    1.7,
)  # over-relaxation: moves go further than where their half of the unknowns would stop; twelve are then as good as sixty
_CHUNK = 32  # frames whose Jacobians a thread makes at once
_FEWEST_FRAMES = 5  # of a shot: fewer say nothing about depth
_FEWEST_POINTS = 20  # seen in a frame: else its pose is left to landmarks and neighbours
_ERROR = 0.01  # of a point's place in the picture, in face sizes, one standard deviation; half the weight at this error
_SKIN_M, _HAIR_M = 0.002, 0.015  # how far points are from where they start
_BEHIND_M = 0.04  # heads turn about an axis this far behind the skin, nearly: turns about it shift the picture least
# How wrong the landmarks' poses are, one standard deviation: pitch, yaw, roll; x, y, depth.
_SIGMA = (math.radians(1.0), math.radians(1.0), math.radians(0.6), 0.003, 0.003, 0.02)
_LEFT = (*(math.radians(0.1),) * 3, 0.0002, 0.0002, 0.003)  # ... and after, for the landmarks' last word
_TRUST = 2.0  # in landmarks, once they no longer decide about the pose


def adjust(clip: Clip, detections: Detections, rig: Rig, solution: Solution) -> Solution:
    """`solution` with poses that fit points of the whole head, shot by shot, and identity and expressions fitted again.

    Args:
        clip: The pictures.
        detections: Which frames show the face, where shots begin, who is person.
        rig: Must name a face region, else nothing is adjusted.
        solution: What the landmarks gave.

    Raises:
        MissingError: OpenCV is not installed.
    """
    if "face" not in rig.regions or not bool(rig.regions["face"].any()):
        return solution
    rig, known = rig.to("cpu"), torch.zeros(len(detections), dtype=torch.bool)
    with one_thread():
        poses = poses_of(rig, solution.params)
        for begin, end in pairwise([0, *detections.cuts, len(detections)]):
            frames = [t for t in range(begin, end) if bool(detections.found[t])]
            if len(frames) < _FEWEST_FRAMES:
                continue
            tracks = follow_points(clip, detections, rig, solution, frames, poses)
            lens = Lens(solution.focal_px, detections.width / 2, detections.height / 2, face_size(detections, frames))
            better = adjust_poses(tracks, poses[frames], lens)
            enough = (tracks.seen.sum((1, 2)) >= _FEWEST_POINTS) & better.turn.isfinite().all(2).all(1) & better.shift.isfinite().all(1)
            known[frames], poses = enough, poses.with_frames(frames, better)
        if not bool(known.any()):
            return solution
        rotation, translation = rotation_and_translation(rig, solution.params, poses[known.nonzero()[:, 0].tolist()], known)
    return solve_with_poses(solution, rotation, translation, known, _LEFT, key_steps=4, steps=2, trust=_TRUST)


@dataclass(frozen=True)
class Lens:
    """A pinhole's focal length and principal point, px, and the size of the face in the picture, px: what errors are measured in."""

    focal_px: float
    cx: float
    cy: float
    face_px: float


def adjust_poses(tracks: Tracks, poses: Poses, lens: Lens) -> Poses:
    """The poses, near `poses`, under which the tracks are those of rigid points. float64.

    Points and poses move by Gauss-Newton in turn, all of each at once. Errors beyond a hundredth of the face count ever less.
    """
    if not bool(tracks.seen.any()):
        return poses
    points, total = tracks.start, poses.shift.new_zeros(len(poses), 6)
    pivot = tracks.start[tracks.skin if bool(tracks.skin.any()) else tracks.start.any(-1)].mean(0)
    pivot = pivot - pivot.new_tensor([0.0, 0.0, _BEHIND_M])
    chunks = [slice(first, first + _CHUNK) for first in range(0, len(poses), _CHUNK)]
    for _ in range(_ROUNDS):
        points = points + _OVER * _points_step(points, poses, tracks, lens, chunks)
        centre = turned(poses.turn, pivot) + poses.shift
        step = _OVER * _poses_step(points, poses, tracks, lens, chunks, centre, total)
        total = total + step
        poses = poses.moved(step, centre)
    return poses


def _points_step(points: Tensor, poses: Poses, tracks: Tracks, lens: Lens, chunks: list[slice]) -> Float[Tensor, "K P 3"]:
    """Where the points should go, the poses as they are; the prior holds them to where they start."""
    precision = torch.where(tracks.skin, _SKIN_M, _HAIR_M)[..., None].to(points) ** -2
    system, right = points.new_zeros(*points.shape, 3), precision * (tracks.start - points)
    system.diagonal(dim1=-2, dim2=-1).add_(precision)

    def terms(chunk: slice) -> tuple[Tensor, Tensor]:
        here = tracks.frames(chunk)
        error, weight, by_place = _errors(points, poses[chunk], here, lens)
        by_point, keys = by_place @ poses.turn[chunk, None, None], here.near.flatten()  # [T, N, P, 2, 3]
        weighted = (by_point * weight[..., None, None]).mT
        normal, gradient = torch.zeros_like(system), torch.zeros_like(right)
        normal.index_add_(0, keys, (weighted @ by_point).flatten(0, 1))
        return normal, gradient.index_add_(0, keys, -turned(weighted, error).flatten(0, 1))

    parts: list[tuple[Tensor, Tensor]] = side_by_side(terms, chunks)
    for normal, gradient in parts:
        system += normal
        right += gradient
    return torch.linalg.solve(system, right)


def _poses_step(
    points: Tensor, poses: Poses, tracks: Tracks, lens: Lens, chunks: list[slice], centre: Tensor, total: Tensor
) -> Float[Tensor, "T 6"]:
    """How the heads should turn about `centre` and shift, the points as they are; the prior holds against what they moved in `total`."""
    prior = total.new_tensor(_SIGMA) ** -2

    def solved(chunk: slice) -> Tensor:
        here, at = tracks.frames(chunk), poses[chunk]
        error, weight, by_place = _errors(points, at, here, lens)
        arm = at.place(points[here.near].flatten(1, 2)) - centre[chunk, None]
        by_place = by_place.flatten(1, 2)
        by_turn = torch.linalg.cross(arm[:, :, None].expand_as(by_place), by_place)
        jacobian = torch.cat([by_turn, by_place], -1).flatten(1, 2)  # [T, N P 2, 6]
        weighted = (jacobian * weight.flatten(1).repeat_interleave(2, 1)[..., None]).mT
        return torch.linalg.solve(weighted @ jacobian + torch.diag(prior), -turned(weighted, error.flatten(1)) - prior * total[chunk])

    return torch.cat(side_by_side(solved, chunks))


def _errors(points: Tensor, poses: Poses, tracks: Tracks, lens: Lens) -> tuple[Tensor, Tensor, Tensor]:
    """Projected minus seen, in face sizes [T, N, P, 2]; weights [T, N, P]; derivatives by the place in camera space [T, N, P, 2, 3]."""
    near = points[tracks.near]
    x, y, z = poses.place(near.flatten(1, 2)).unflatten(1, near.shape[1:3]).unbind(-1)
    z = z.clamp(max=-1e-3)  # nothing is at or behind the camera
    focal, zero = lens.focal_px / lens.face_px, torch.zeros_like(z)
    seen = (tracks.pixels - tracks.pixels.new_tensor([lens.cx, lens.cy])) / lens.face_px
    error = torch.where(tracks.seen[..., None], torch.stack([-focal * x / z, focal * y / z], -1) - seen, 0.0)
    weight = tracks.seen / (_ERROR**2 + error.square().sum(-1))
    by_place = focal * torch.stack([torch.stack([-1 / z, zero, x / z**2], -1), torch.stack([zero, 1 / z, -y / z**2], -1)], -2)
    return error, weight, by_place
