"""Photometric refinement of the head's pose: the face is aligned with what it looks like on average over the clip.

Landmarks leave the head's pitch uncertain by more than a degree (an open mouth or raised brows look much like a nod), which at the
crown is ten pixels. The skin itself knows better. For every shot: the colours of the face's vertices are averaged over frames into one
texture; then each frame's rotation and translation move by Gauss-Newton until its picture shows that texture where the mesh is;
four times over, since better poses give a sharper texture. Pictures are band-passed: light changes as the head turns.

Then the landmarks are fitted once more with these poses as priors, so that expressions no longer make up for what was the pose.
The image alignment is Lucas and Kanade's; VHAP and GAF do the same with a rendered texture, a light model, and thousands of Adam steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.mesh import vertex_normals
from gafcore.progress import track as progress
from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import Detections
from gafcore.tracking.solve import Solution, one_thread, solve_with_poses
from gafcore.types import RigParams

_FACE_PX = 150  # faces are scaled to this size: finer pictures cost more and gain nothing
_FINE_PX, _COARSE_PX = 0.75, 6.0  # the band, standard deviations at that size
_MARGIN = 0.15  # of the face's size, around it
_POINTS = 1500
_FACING = 0.25  # least cosine between a vertex' normal and the ray to the camera
_TEXTURE_FRAMES = 48
_ROUNDS, _STEPS = 4, 2
_BATCH = 16  # frames that move together: their pictures fit the cache
_CORRELATED = 0.05  # neighbouring pixels err together: this share of them counts
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
            patches = {}
            for t in frames:
                patches[t] = _patch(clip.image(t), detections.landmarks[t].numpy())
                next(bar)
            if len(frames) > 1:
                _refine_shot(poses, patches, _Lens(solution.focal_px, detections.width / 2, detections.height / 2))
        next(bar, None)  # the end of the progress bar
    rotation = torch.from_numpy(Rotation.from_matrix(poses.rotation.numpy()).as_rotvec())
    return solve_with_poses(solution, rotation, poses.translation, (*_LEFT_RAD, *_LEFT_M))


@dataclass(frozen=True)
class _Lens:
    focal_px: float
    cx: float
    cy: float


@dataclass(frozen=True)
class _Patch:
    """A frame's face, band-passed: `image` [3, h, w]; its pixel (u, v) is the frame's (u / scale + x0, v / scale + y0)."""

    image: Float[Tensor, "3 h w"]
    x0: float
    y0: float
    scale: float


@dataclass(frozen=True)
class _Patches:
    """The patches of B frames, padded to one size: `stack` holds the picture and its slopes along x and y."""

    stack: Float[Tensor, "B 9 h w"]
    origin: Float[Tensor, "B 1 2"]
    scale: Float[Tensor, "B 1 1"]


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


def _patch(picture: np.ndarray, landmarks: Float[np.ndarray, "478 2"]) -> _Patch:
    """The face's surroundings at `_FACE_PX`, without its finest and its coarsest structure."""
    height, width = picture.shape[:2]
    low, high = landmarks.min(0), landmarks.max(0)
    margin = _MARGIN * (high - low)
    x0, y0 = np.floor(np.clip(low - margin, 0, (width - 2, height - 2))).astype(int)
    x1, y1 = np.ceil(np.clip(high + margin, (x0 + 2, y0 + 2), (width, height))).astype(int)
    scale = min(1.0, _FACE_PX / max(1.0, float(np.sqrt(np.prod(high - low)))))
    size = (max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale)))
    small = Image.fromarray(np.ascontiguousarray(picture[y0:y1, x0:x1])).resize(size, Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32) / 255
    band = ndimage.gaussian_filter(pixels, (_FINE_PX, _FINE_PX, 0)) - ndimage.gaussian_filter(pixels, (_COARSE_PX, _COARSE_PX, 0))
    return _Patch(torch.from_numpy(band).permute(2, 0, 1).contiguous(), float(x0), float(y0), float(size[0] / (x1 - x0)))


def _refine_shot(poses: _Poses, patches: dict[int, _Patch], lens: _Lens) -> None:
    frames = list(patches)
    for _ in range(_ROUNDS):
        texture, known = _texture(poses, patches, frames[:: max(1, len(frames) // _TEXTURE_FRAMES)], lens)
        for first in range(0, len(frames), _BATCH):
            batch = frames[first : first + _BATCH]
            t, together = torch.tensor(batch), _together([patches[i] for i in batch])
            for _ in range(_STEPS):
                poses.move(t, _step(poses, t, together, texture, known, lens))


def _texture(poses: _Poses, patches: dict[int, _Patch], frames: list[int], lens: _Lens) -> tuple[Tensor, Tensor]:
    """Mean colour [U, 3] of each point over the frames that show it, and which points were shown at least twice over."""
    total = poses.points.new_zeros(poses.points.shape[1], 4)
    for i in frames:
        t, patch = torch.tensor([i]), _together([patches[i]])
        weight = _facing(poses, t)[0, :, None]
        colors = _sample(patch.stack[:, :3], _in_patch(poses.points[t], patch, lens))[0]
        total += torch.cat([colors * weight, weight], 1)
    return total[:, :3] / total[:, 3:].clamp(min=1e-9), total[:, 3] > 1.5


def _facing(poses: _Poses, t: Tensor) -> Float[Tensor, "B U"]:
    """Cosine between normal and the ray to the camera; 0 where it is small."""
    cosine = -(poses.normals[t] * torch.nn.functional.normalize(poses.points[t], dim=-1)).sum(-1)
    return torch.where(cosine > _FACING, cosine, 0.0)


def _step(poses: _Poses, t: Tensor, patches: _Patches, texture: Tensor, known: Tensor, lens: _Lens) -> Float[Tensor, "B 6"]:
    """One Gauss-Newton step of each frame: turn about the points' mean, shift."""
    points, weight = poses.points[t], _facing(poses, t) * known
    values = _sample(patches.stack, _in_patch(points, patches, lens)).unflatten(-1, (3, 3))  # [B, U, (value, slope x, slope y), channel]
    error = values[:, :, 0] - texture
    sizes = torch.where((weight > 0)[..., None], error.abs(), torch.nan).flatten(1)
    sigma = 1.48 * sizes.nanmedian(1).values.nan_to_num(1.0).clamp(min=1e-4)[:, None]
    weight = weight * _CORRELATED / (sigma**2 * (1 + (error.norm(dim=-1) / (_TUKEY * sigma)).square()))
    motion = _pixel_jacobian(points, lens.focal_px) * patches.scale[..., None]  # [B, U, 2, 6]
    jacobian = values[:, :, 1].unsqueeze(-1) * motion[:, :, :1] + values[:, :, 2].unsqueeze(-1) * motion[:, :, 1:]  # [B, U, 3, 6]
    weighted = (jacobian * weight[..., None, None]).flatten(1, 2)
    prior = poses.moved.new_tensor(_SIGMA) ** -2
    system = (weighted.mT @ jacobian.flatten(1, 2)).double() + torch.diag(prior)
    right = -(weighted.mT @ error.flatten(1)[..., None])[..., 0].double() - prior * poses.moved[t]
    return torch.linalg.solve(system, right)


def _pixel_jacobian(points: Float[Tensor, "B U 3"], focal: float) -> Float[Tensor, "B U 2 6"]:
    """Motion of projections, px, with a turn about the points' mean and a shift."""
    x, y, z = points.unbind(-1)
    zero = torch.zeros_like(z)
    by_shift = focal * torch.stack([torch.stack([-1 / z, zero, x / z**2], -1), torch.stack([zero, 1 / z, -y / z**2], -1)], 2)
    arm = (points - points.mean(1, keepdim=True))[:, :, None].expand_as(by_shift)
    return torch.cat([torch.linalg.cross(arm, by_shift), by_shift], -1)


def _in_patch(points: Float[Tensor, "B U 3"], patches: _Patches, lens: _Lens) -> Float[Tensor, "B U 2"]:
    x, y, z = points.unbind(-1)
    pixels = torch.stack([lens.cx - lens.focal_px * x / z, lens.cy + lens.focal_px * y / z], -1)
    return (pixels - patches.origin) * patches.scale


def _together(patches: list[_Patch]) -> _Patches:
    """Central differences are zero at a patch' border and in its padding: nothing pulls there."""
    height, width = (max(p.image.shape[i] for p in patches) for i in (1, 2))
    stack = torch.zeros(len(patches), 9, height, width)
    for into, patch in zip(stack, patches, strict=True):
        image, (h, w) = patch.image, patch.image.shape[1:]
        into[:3, :h, :w] = image
        into[3:6, :h, 1 : w - 1] = (image[:, :, 2:] - image[:, :, :-2]) / 2
        into[6:9, 1 : h - 1, :w] = (image[:, 2:] - image[:, :-2]) / 2
    origin = torch.tensor([[[p.x0, p.y0]] for p in patches])
    return _Patches(stack, origin, torch.tensor([[[p.scale]] for p in patches]))


def _sample(images: Float[Tensor, "B C h w"], uv: Float[Tensor, "B U 2"]) -> Float[Tensor, "B U C"]:
    """Bilinear, 0 outside; pixel centres at +0.5."""
    grid = 2 * uv / uv.new_tensor([images.shape[3], images.shape[2]]) - 1
    values = torch.nn.functional.grid_sample(images, grid[:, None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return values[:, :, 0].mT
