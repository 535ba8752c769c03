"""Photometric refinement of the head's pose: the face is aligned with what it looks like on average over the clip.

Landmarks leave the head's pitch uncertain by more than a degree (an open mouth or raised brows look much like a nod), which at the
crown is ten pixels. The skin itself knows better. For every shot: the greys of the face's vertices are averaged over frames into one
texture; then each frame's rotation and translation move by Gauss-Newton until its picture shows that texture where the mesh is;
twice over, since better poses give a sharper texture. Pictures are grey and band-passed (patches.py): light changes as the head turns.

Then the landmarks are fitted once more with these poses as priors, so that expressions no longer make up for what was the pose.
The image alignment is Lucas and Kanade's; VHAP and GAF do the same with a rendered texture, a light model, and thousands of Adam steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.mesh import vertex_normals
from gafcore.progress import track as progress
from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import Detections
from gafcore.tracking.patches import Patches, cut_patch, together
from gafcore.tracking.solve import Solution, solve_with_poses
from gafcore.tracking.threads import one_thread, side_by_side
from gafcore.types import RigParams

_POINTS = 1500
_FACING = 0.25  # least cosine between a vertex' normal and the ray to the camera
_ROUNDS, _STEPS = 2, 3
_BATCH = 16  # frames that move together: their pictures fit the cache
_CORRELATED = 0.2  # neighbouring pixels err together: this share of them counts
_TUKEY = 3.0  # standard deviations at which a residual's weight has halved
# How wrong the landmarks' poses are, one standard deviation: measured on rendered clips (docs/tracking.md). Pitch, yaw, roll; x, y, depth.
_SIGMA = (math.radians(1.3), math.radians(0.7), math.radians(0.3), 0.002, 0.002, 0.003)
_LEFT_RAD, _LEFT_M = (math.radians(0.25),) * 3, (0.0003, 0.0003, 0.002)  # ... and after the refinement, for the landmarks' last word


def refine(clip: Clip, detections: Detections, rig: Rig, solution: Solution) -> Solution:
    """`solution` with every found frame's rotation and translation refined. Shots of one frame stay as they are.

    Args:
        clip: The pictures.
        detections: Which frames show the face, where shots begin.
        rig: Must name a face region, else nothing is refined.
        solution: What the landmarks gave.
    """
    region = rig.regions.get("face")
    if region is None or not bool(region.any()):
        return solution
    with one_thread():
        points = _face_points(rig, region)
        poses = _start(rig, solution.params, points)
        starts = [0, *detections.cuts, len(detections)]
        bar = iter(progress(range(int(detections.found.sum())), f"{clip.name}: poses by texture"))
        for begin, end in pairwise(starts):
            frames = [t for t in range(begin, end) if bool(detections.found[t])]
            stacks = []
            for first in range(0, len(frames), _BATCH):
                t = torch.tensor(frames[first : first + _BATCH])
                pictures = [(clip.image(i), detections.landmarks[i].numpy()) for i in t.tolist()]
                stacks.append((t, together(side_by_side(lambda of: cut_patch(*of), pictures))))
                for _ in pictures:
                    next(bar)
            if len(frames) > 1:
                _refine_shot(poses, stacks, _Lens(solution.focal_px, detections.width / 2, detections.height / 2))
        next(bar, None)  # the end of the progress bar
    rotation = torch.from_numpy(Rotation.from_matrix(poses.rotation.numpy()).as_rotvec())
    return solve_with_poses(solution, rotation, poses.translation, (*_LEFT_RAD, *_LEFT_M))


_Stack: TypeAlias = tuple[Int[Tensor, "B"], Patches]  # some frames' numbers and pictures


@dataclass(frozen=True)
class _Lens:
    focal_px: float
    cx: float
    cy: float

    def project(self, points: Float[Tensor, "B U 3"]) -> Float[Tensor, "B U 2"]:
        x, y, z = points.unbind(-1)
        return torch.stack([self.cx - self.focal_px * x / z, self.cy + self.focal_px * y / z], -1)


@dataclass
class _Poses:
    """The state of the refinement: T frames, U face points, in camera space (looking along -z, y up)."""

    points: Float[Tensor, "T U 3"]
    normals: Float[Tensor, "T U 3"]
    rotation: Float[Tensor, "T 3 3"]
    translation: Float[Tensor, "T 3"]
    root: Float[Tensor, "T 3"]  # the joint that `rotation` turns about, before `translation`
    moved: Float[Tensor, "T 6"]  # so far: what the prior holds against

    def move(self, t: Tensor, delta: Float[Tensor, "B 6"]) -> None:
        """Turn frames `t` by delta[:, :3] about their points' means, then shift them by delta[:, 3:]."""
        turn, shift, pivot = axis_angle_to_matrix(delta[:, :3]), delta[:, 3:], self.points[t].double().mean(1)
        self.points[t] = ((self.points[t] - pivot[:, None]) @ turn.mT + (pivot + shift)[:, None]).float()
        self.normals[t] = self.normals[t] @ turn.mT.float()
        arm = self.root[t] + self.translation[t] - pivot
        self.translation[t] = (turn @ arm[..., None])[..., 0] + pivot + shift - self.root[t]
        self.rotation[t] = turn @ self.rotation[t]
        self.moved[t] += delta


def _face_points(rig: Rig, region: Tensor) -> Tensor:
    """Vertices of the facial skin, evenly thinned."""
    skin = region.clone()
    for name in ("eyes", "mouth"):
        if name in rig.regions:
            skin &= ~rig.regions[name]
    vertices = torch.nonzero(skin)[:, 0]
    return vertices[:: max(1, len(vertices) // _POINTS)]


def _start(rig: Rig, params: RigParams, vertices: Tensor) -> _Poses:
    """Normals are those of the neutral face, turned with the head: good enough to say what faces the camera."""
    rest = rig.vertices(replace(rig.neutral(1), shape=params.shape, static_offset=params.static_offset))[0]
    rotation = axis_angle_to_matrix(params.rotation.double())
    return _Poses(
        points=rig.vertices(params, vertices),
        normals=vertex_normals(rest, rig.faces)[vertices] @ rotation.mT.float(),
        rotation=rotation,
        translation=params.translation.double().clone(),
        root=rig.rest_joints(params)[:, 0].double(),
        moved=torch.zeros(len(params), 6).double(),
    )


def _refine_shot(poses: _Poses, stacks: list[_Stack], lens: _Lens) -> None:
    def move(stack: _Stack) -> None:
        for _ in range(_STEPS):
            poses.move(stack[0], _step(poses, *stack, texture, known, lens))

    for _ in range(_ROUNDS):
        texture, known = _texture(poses, stacks, lens)
        side_by_side(move, stacks)


def _texture(poses: _Poses, stacks: list[_Stack], lens: _Lens) -> tuple[Float[Tensor, "U"], Bool[Tensor, "U"]]:
    """Mean grey of each point over the frames that show it, and which points were shown at least twice over."""

    def share(stack: _Stack) -> Float[Tensor, "2 U"]:
        t, patches = stack
        weight = _facing(poses, t)
        grey = patches.sample(lens.project(poses.points[t]), channels=1)[:, 0]
        return torch.stack([(grey * weight).sum(0), weight.sum(0)])

    total = torch.stack(side_by_side(share, stacks)).sum(0)
    return total[0] / total[1].clamp(min=1e-9), total[1] > 1.5


def _facing(poses: _Poses, t: Tensor) -> Float[Tensor, "B U"]:
    """Cosine between normal and the ray to the camera; 0 where it is small."""
    cosine = -(poses.normals[t] * torch.nn.functional.normalize(poses.points[t], dim=-1)).sum(-1)
    return torch.where(cosine > _FACING, cosine, 0.0)


def _step(poses: _Poses, t: Tensor, patches: Patches, texture: Tensor, known: Tensor, lens: _Lens) -> Float[Tensor, "B 6"]:
    """One Gauss-Newton step of each frame: turn about the points' mean, shift."""
    points, weight = poses.points[t], _facing(poses, t) * known
    value, *slopes = patches.sample(lens.project(points)).unbind(1)
    error = value - texture
    sigma = 1.48 * torch.where(weight > 0, error.abs(), torch.nan).nanmedian(1, keepdim=True).values.nan_to_num(1.0).clamp(min=1e-4)
    weight = weight * _CORRELATED / (sigma**2 + (error / _TUKEY).square())
    jacobian = _jacobian(points, slopes, patches.scale[:, 0] * lens.focal_px)
    weighted = jacobian * weight[:, None]
    prior = poses.moved.new_tensor(_SIGMA) ** -2
    system = (weighted @ jacobian.mT).double() + torch.diag(prior)
    right = -(weighted @ error[..., None])[..., 0].double() - prior * poses.moved[t]
    return torch.linalg.solve(system, right)


def _jacobian(points: Float[Tensor, "B U 3"], slopes: list[Tensor], focal: Float[Tensor, "B 1"]) -> Float[Tensor, "B 6 U"]:
    """How the grey under each point changes with a turn about the points' mean and with a shift; `focal` in the slopes' pixels."""
    x, y, z = points.unbind(-1)
    along_x, along_y = -slopes[0] * focal / z, slopes[1] * focal / z
    by_shift = torch.stack([along_x, along_y, -(along_x * x + along_y * y) / z], 1)
    arm = (points - points.mean(1, keepdim=True)).mT
    return torch.cat([torch.linalg.cross(arm, by_shift, dim=1), by_shift], 1)
