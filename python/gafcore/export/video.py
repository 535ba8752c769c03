"""Moving pictures of an avatar: the cameras and poses, and their renders one by one (`gafcore.movies` writes them)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars import RiggedAvatar, read_params, render
from gafcore.cameras import from_angles
from gafcore.pictures import to_uint8
from gafcore.render import CompiledRenderer
from gafcore.rigs.offsets import with_static_offset
from gafcore.types import Camera, RigParams

_ORBIT_SWEEP_RAD = math.radians(75)
_ORBIT_NOD_RAD = math.radians(12)


@dataclass(frozen=True)
class Shot:
    """One picture to come: where the camera is and how the head is posed (one timestep)."""

    camera: Camera
    params: RigParams


def orbit_camera(width: int, height: int, *, azimuth_rad: float = 0.0, elevation_rad: float = 0.0, distance_m: float = 1.0) -> Camera:
    """A camera that looks at the head, which fills about 60 % of the shorter side: 0.45 m of it fit in at the head's distance."""
    focal_px = min(width, height) * distance_m / 0.45
    return from_angles(azimuth_rad, elevation_rad, distance_m, focal_px=focal_px, width=width, height=height)


def orbit_shots(avatar: RiggedAvatar, n: int, width: int, height: int, *, still: bool = False) -> list[Shot]:
    """A swing of the camera by 75 degrees to both sides and 12 up and down, about the head's mean position.

    The head moves through the avatar's own timesteps, or keeps the first one's expression with `still`.
    The pose relative to the room is taken out, so that the head stays in the middle.
    """
    target = _head_centre(avatar).cpu()  # where cameras are made
    shots = []
    for i in range(n):
        phase = 2 * math.pi * i / n
        camera = orbit_camera(
            width, height, azimuth_rad=_ORBIT_SWEEP_RAD * math.sin(phase), elevation_rad=_ORBIT_NOD_RAD * math.sin(2 * phase)
        )
        viewmat = camera.viewmat.clone()
        viewmat[:3, 3] -= viewmat[:3, :3] @ target
        step = 0 if still else i % len(avatar.params)
        params = avatar.params[step]
        zero = torch.zeros_like(params.rotation)
        shots.append(Shot(replace(camera, viewmat=viewmat), replace(params, rotation=zero, translation=zero)))
    return shots


def camera_shots(avatar: RiggedAvatar, cameras: Sequence[Camera]) -> list[Shot]:
    """The avatar's own timesteps, seen by the one camera, or by one a timestep."""
    steps = len(avatar.params)
    if len(cameras) not in (1, steps):
        raise ValueError(f"cameras must be 1 or one a timestep ({steps}), got {len(cameras)}")
    return [Shot(cameras[t if len(cameras) > 1 else 0], avatar.params[t]) for t in range(steps)]


def motion_shots(avatar: RiggedAvatar, motion: str | Path, camera: Camera) -> list[Shot]:
    """Another recording's motion (an .npz of rig parameters) on this avatar: the shape and static offset stay its own."""
    moving = read_params(motion, avatar.rig).to(avatar.means.device)
    moving = with_static_offset(avatar.rig, replace(moving, shape=avatar.params.shape), avatar.params.static_offset)
    return [Shot(camera, moving[t]) for t in range(len(moving))]


def render_shots(
    avatar: RiggedAvatar, shots: Iterable[Shot], background: Float[Tensor, "3"] | None = None, *, compiled: bool | None = None
) -> Iterator[np.ndarray]:
    """8-bit pictures [H, W, 3], one after the other, in constant memory.

    Args:
        avatar: What to draw.
        shots: From where, in which pose.
        background: RGB; white where absent.
        compiled: Draw with `gafcore.render.CompiledRenderer`; by default where the avatar is on a GPU. Shots of a head of another shape
            than the avatar's are drawn without.
    """
    compiled = avatar.means.device.type == "cuda" if compiled is None else compiled
    renderer, size = None, (0, 0)
    try:
        for shot in shots:
            if compiled and _of_this_person(avatar, shot.params):
                if renderer is None or size != (shot.camera.width, shot.camera.height):
                    if renderer is not None:
                        renderer.close()
                    size = shot.camera.width, shot.camera.height
                    renderer = CompiledRenderer(avatar, *size, background=background)
                image = renderer([shot.camera], shot.params).image[0]
            else:
                with torch.no_grad():
                    image = render(avatar, [shot.camera], shot.params, background).image[0]
            yield to_uint8(image)
    finally:
        if renderer is not None:
            renderer.close()


def _of_this_person(avatar: RiggedAvatar, params: RigParams) -> bool:
    """Whether shape and static offset are the avatar's very tensors, as in all shots that are made here: nothing is read from a GPU."""
    return params.shape is avatar.params.shape and params.static_offset is avatar.params.static_offset


def _head_centre(avatar: RiggedAvatar) -> Float[Tensor, "3"]:
    """The middle of the head's bounding box at rest, without the neck's lower end pulling it down."""
    rest = replace(avatar.rig.neutral(1), shape=avatar.params.shape, static_offset=avatar.params.static_offset)
    vertices = avatar.rig.vertices(rest)[0]
    face = avatar.rig.regions.get("face")
    top, front = vertices.amax(0), vertices[face].mean(0) if face is not None and bool(face.any()) else vertices.mean(0)
    return torch.stack([vertices[:, 0].mean(), (top[1] + front[1]) / 2, vertices[:, 2].mean()])
