"""Bundle adjustment: every frame's head pose and the points of the head that were followed (`keypoints.py`), together.

Landmarks mistake a part of an expression for a nod: on expressive.mp4 they leave points of the hair's crown five pixels off. Points of hair
and skin on one rigid head, each with a place of its own, have half of that: docs/tracking.md has the figures. Then the landmarks are
fitted once more with these poses, so that identity and expressions no longer make up for what was the pose.

Points of the skin stay near the rig's surface, else relief and the size of turns could be exchanged (the bas-relief ambiguity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.rigs.base import Rig
from gafcore.tracking.detections import Detections
from gafcore.tracking.keypoints import Tracks, face_size, follow_points
from gafcore.tracking.poses import Poses, poses_of, rotation_and_translation, turned
from gafcore.tracking.solve import Solution, solve_with_poses
from gafcore.tracking.threads import one_thread, side_by_side

_ROUNDS = 12
_OVER = 1.7  # over-relaxation: moves go further than where their half of the unknowns would stop; twelve are then as good as sixty
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
    return solve_with_poses(solution, rotation, translation, known, _LEFT, key_steps=2, steps=2, trust=_TRUST)


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
    tracks = replace(tracks, pixels=(tracks.pixels - tracks.pixels.new_tensor([lens.cx, lens.cy])) / lens.face_px)
    points, total, focal = tracks.start, poses.shift.new_zeros(len(poses), 6), lens.focal_px / lens.face_px
    pivot = tracks.start[tracks.skin if bool(tracks.skin.any()) else tracks.start.any(-1)].mean(0)
    pivot = pivot - pivot.new_tensor([0.0, 0.0, _BEHIND_M])
    views = [_view(tracks, k) for k in range(len(points))]
    for _ in range(_ROUNDS):
        points = points + _OVER * _points_step(points, poses, tracks, views, focal)
        centre = turned(poses.turn, pivot) + poses.shift
        step = _OVER * _poses_step(points, poses, tracks, focal, centre, total)
        total = total + step
        poses = poses.moved(step, centre)
    return poses


@dataclass(frozen=True)
class _View:
    """The F frames that were compared with one key frame, and where they show its points: in face sizes from the principal point."""

    frames: list[int]
    pixels: Float[Tensor, "F P 2"]
    seen: Bool[Tensor, "F P"]


def _view(tracks: Tracks, key: int) -> _View:
    frame, place = torch.nonzero(tracks.near == key, as_tuple=True)
    return _View(frame.tolist(), tracks.pixels[frame, place], tracks.seen[frame, place])


def _points_step(points: Tensor, poses: Poses, tracks: Tracks, views: list[_View], focal: float) -> Float[Tensor, "K P 3"]:
    """Where the points should go, the poses as they are; the prior holds them to where they start."""
    precision = torch.where(tracks.skin, _SKIN_M, _HAIR_M)[..., None].to(points) ** -2

    def solved(key: int) -> Tensor:
        view, at = views[key], poses[views[key].frames]
        placed = at.place(points[key].expand(len(at), -1, -1))
        error, rows = _weighted(placed, view.pixels, view.seen, focal)
        by_point = (rows.flatten(1, 2) @ at.turn).unflatten(1, (-1, 2)).transpose(0, 1).flatten(1, 2)  # [P, F 2, 3]
        system, right = by_point.mT @ by_point, precision[key] * (tracks.start[key] - points[key])
        system.diagonal(dim1=-2, dim2=-1).add_(precision[key])
        return torch.linalg.solve(system, right - turned(by_point.mT, error.transpose(0, 1).flatten(1)))

    return torch.stack(side_by_side(solved, range(len(points))))


def _poses_step(points: Tensor, poses: Poses, tracks: Tracks, focal: float, centre: Tensor, total: Tensor) -> Float[Tensor, "T 6"]:
    """How the heads should turn about `centre` and shift, the points as they are; the prior holds against what they moved in `total`."""
    prior = total.new_tensor(_SIGMA) ** -2

    def solved(start: int) -> Tensor:
        chunk = slice(start, start + _CHUNK)
        placed = poses[chunk].place(points[tracks.near[chunk]].flatten(1, 2))  # [T, N P, 3]
        error, rows = _weighted(placed, tracks.pixels[chunk].flatten(1, 2), tracks.seen[chunk].flatten(1, 2), focal)
        arm = placed - centre[chunk, None]
        jacobian = torch.cat([torch.linalg.cross(arm[:, :, None].expand_as(rows), rows), rows], -1).flatten(1, 2)  # [T, N P 2, 6]
        right = -turned(jacobian.mT, error.flatten(1)) - prior * total[chunk]
        return torch.linalg.solve(jacobian.mT @ jacobian + torch.diag(prior), right)

    return torch.cat(side_by_side(solved, range(0, len(poses), _CHUNK)))


def _weighted(
    placed: Float[Tensor, "F M 3"], pixels: Float[Tensor, "F M 2"], seen: Bool[Tensor, "F M"], focal: float
) -> tuple[Float[Tensor, "F M 2"], Float[Tensor, "F M 2 3"]]:
    """Projected minus seen and its derivatives by the place in camera space, both times the root of the weight; 0 where not seen."""
    x, y, z = placed.unbind(-1)
    z = z.clamp(max=-1e-3)  # nothing is at or behind the camera
    scale = focal / z
    error = torch.where(seen[..., None], torch.stack([-scale * x, scale * y], -1) - pixels, 0.0)
    root = (seen / (_ERROR**2 + error.square().sum(-1))).sqrt()
    scale = scale * root
    rows = placed.new_zeros(*z.shape, 2, 3)
    rows[..., 0, 0], rows[..., 0, 2] = -scale, scale * x / z
    rows[..., 1, 1], rows[..., 1, 2] = scale, -scale * y / z
    return error * root[..., None], rows
