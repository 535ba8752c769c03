"""Making and combining pinhole cameras (OpenCV axes: x right, y down, z forward)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.types import Camera


def intrinsics(focal_px: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """A pinhole matrix with square pixels and the principal point at the centre of the image."""
    return torch.tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]])


def look_at(
    eye: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 1.0, 0.0), *, focal_px: float, width: int, height: int
) -> Camera:
    """A camera at `eye` (metres) that looks at `target`, with the world direction `up` towards the top of the image.

    Raises:
        ValueError: `eye` equals `target`, or `up` is parallel to the line of sight.
    """
    position, up_dir = torch.tensor(eye, dtype=torch.float64), torch.tensor(up, dtype=torch.float64)
    forward = torch.tensor(target, dtype=torch.float64) - position
    right = torch.linalg.cross(forward, up_dir)
    if float(forward.norm()) == 0 or float(right.norm()) < 1e-9 * float(forward.norm()):
        raise ValueError(f"look_at needs eye != target and up not along the line of sight, got eye {eye}, target {target}, up {up}")
    forward, right = forward / forward.norm(), right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ position
    return Camera(viewmat.float(), intrinsics(focal_px, width, height), width, height)


def from_angles(
    azimuth_rad: float,
    elevation_rad: float,
    distance_m: float,
    *,
    focal_px: float,
    width: int,
    height: int,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Camera:
    """A camera on a sphere about `target`: azimuth 0 faces a head (+z), positive azimuth moves towards +x, positive elevation up."""
    ring = distance_m * math.cos(elevation_rad)
    offset = (ring * math.sin(azimuth_rad), distance_m * math.sin(elevation_rad), ring * math.cos(azimuth_rad))
    eye = [float(t) + o for t, o in zip(target, offset, strict=True)]
    return look_at(eye, target, focal_px=focal_px, width=width, height=height)


def resize(camera: Camera, width: int, height: int) -> Camera:
    """The same view at another image size: `K` is scaled per axis, so the field of view stays."""
    scale = torch.tensor([width / camera.width, height / camera.height, 1.0], dtype=camera.K.dtype, device=camera.K.device)
    return replace(camera, K=camera.K * scale[:, None], width=width, height=height)


def camera_position(camera: Camera) -> Float[Tensor, "3"]:
    """The camera's centre in world space, metres."""
    return -camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3]


def stack(cameras: Sequence[Camera]) -> tuple[Float[Tensor, "C 4 4"], Float[Tensor, "C 3 3"]]:
    """`(viewmats, Ks)` as the rasterizers take them.

    Raises:
        ValueError: No camera, or cameras of different image sizes.
    """
    sizes = {(c.width, c.height) for c in cameras}
    if len(sizes) != 1:
        raise ValueError(f"stack needs at least one camera and one image size, got {len(cameras)} cameras of sizes {sorted(sizes)}")
    return torch.stack([c.viewmat for c in cameras]), torch.stack([c.K for c in cameras])
