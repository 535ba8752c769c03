"""Where the prior looks from: cameras about the head, upright with it, and square crops of the picture that it is given.

The prior knows heads in one place of the picture and at one size only, so both kinds of view are made by the same rule: a ball about the
middle of the head fills the picture from 1.1 m, whatever the camera of the capture was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from gafcore.cameras import look_at
from gafcore.captures.synthetic.skull import rigid_motion
from gafcore.rigs.base import Rig
from gafcore.types import Camera

HEAD_RADIUS_M = 0.18  # head with hair, from the middle of the skull
FAR_M = 1.1  # the middle of GAF's distances, 1.0 to 1.2


@dataclass(frozen=True)
class HeadPose:
    """The head's own axes (columns: left, up, ahead) and the middle of the skull, in world space, metres."""

    axes: Float[Tensor, "3 3"]
    center: Float[Tensor, "3"]


def head_pose(rig: Rig, vertices: Float[Tensor, "V 3"]) -> HeadPose:
    """How the skull of a posed rig is turned, from the region "scalp" (all vertices where the rig has none), and where its middle is.

    On the CPU, where cameras are made: this waits for vertices on a GPU.
    """
    template, vertices = rig.template.cpu(), vertices.cpu()
    none = torch.zeros(rig.n_vertices, dtype=torch.bool)
    scalp = rig.regions.get("scalp", none).cpu()
    scalp = scalp if bool(scalp.any()) else ~none
    axes, _ = rigid_motion(template[scalp], vertices[scalp])
    head = scalp | rig.regions.get("face", none).cpu()
    local = vertices[head] @ axes
    return HeadPose(axes, axes @ ((local.amin(0) + local.amax(0)) / 2))


def view_camera(pose: HeadPose, azimuth_rad: float, elevation_rad: float, distance_m: float, size: int, roll_rad: float = 0.0) -> Camera:
    """A camera about the head: azimuth 0 looks into the face, positive azimuth is on its left (+x); the head's crown is up in the picture.

    Args:
        pose: Of the head.
        azimuth_rad: About the head's own vertical.
        elevation_rad: Positive looks down on the head.
        distance_m: From the middle of the head; the focal length stays, so nearer heads are larger.
        size: Width and height, pixels.
        roll_rad: Of the picture.
    """
    ring = math.cos(elevation_rad)
    direction = torch.tensor([ring * math.sin(azimuth_rad), math.sin(elevation_rad), ring * math.cos(azimuth_rad)])
    eye = pose.center + distance_m * (pose.axes @ direction)
    up = pose.axes @ torch.tensor([math.sin(roll_rad), math.cos(roll_rad), 0.0])
    focal_px = 0.5 * size * FAR_M / HEAD_RADIUS_M
    return look_at(eye.tolist(), pose.center.tolist(), up.tolist(), focal_px=focal_px, width=size, height=size)


@dataclass(frozen=True)
class Crop:
    """A square of a picture, whole pixels, which may reach beyond it, scaled to `size`."""

    left: int
    top: int
    side: int
    size: int

    def camera(self, camera: Camera) -> Camera:
        """The camera that takes the crop."""
        k = camera.K.clone()
        k[0, 2] -= self.left
        k[1, 2] -= self.top
        k[:2] *= self.size / self.side
        return replace(camera, K=k, width=self.size, height=self.size)

    def cut(self, picture: Float[Tensor, "H W A"], outside: Float[Tensor, "A"]) -> Float[Tensor, "size size A"]:
        """The crop of a picture, low-pass filtered where it shrinks; `outside` is what lies beyond the picture's edge."""
        height, width = picture.shape[:2]
        right, bottom = self.left + self.side, self.top + self.side
        inner = picture[max(self.top, 0) : max(bottom, 0), max(self.left, 0) : max(right, 0)].permute(2, 0, 1) - outside[:, None, None]
        margins = (max(-self.left, 0), max(right - max(width, self.left), 0), max(-self.top, 0), max(bottom - max(height, self.top), 0))
        square = pad(inner, tuple(min(m, self.side) for m in margins))[None]
        scaled = interpolate(square, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return scaled[0].permute(1, 2, 0) + outside


def head_crop(camera: Camera, pose: HeadPose, size: int, *, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Crop:
    """The crop in which the head has the place and size that the prior knows.

    Args:
        camera: Of the picture.
        pose: Of the head, in front of the camera.
        size: Of the crop, pixels.
        zoom: Above 1 the head is larger than usual.
        shift: Moves the crop by shares of its side, right and down.
    """
    middle = camera.viewmat[:3, :3] @ pose.center + camera.viewmat[:3, 3]
    x, y, w = (camera.K @ middle).tolist()
    focal = float(camera.K[0, 0] + camera.K[1, 1]) / 2
    half = focal * HEAD_RADIUS_M / max(w, 1e-3) / zoom
    side = max(round(2 * half), 1)
    return Crop(round(x / w - side / 2 + shift[0] * side), round(y / w - side / 2 + shift[1] * side), side, size)
