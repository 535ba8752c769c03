"""Sixteen cameras on a front arc, as the NeRSemble rig has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gafcore.cameras import from_angles
from gafcore.types import Camera

FRONT_CAMERA = 8
_ARC_RAD = math.radians(75)
_HEIGHTS_RAD = (0.0, math.radians(15))  # the front camera is in the lower row, at eye level


def nersemble_arc(
    n: int = 16,
    *,
    target: Sequence[float] = (0.0, 0.0, 0.0),
    distance_m: float = 1.0,
    radius_m: float = 0.17,
    width: int = 256,
    height: int = 256,
) -> list[Camera]:
    """Cameras from the subject's right (azimuth -75 degrees) to the left (+75), in two alternating rows, all aimed at `target`.

    Camera n // 2 (8 of 16) looks straight at the face. The focal length makes a ball of `radius_m` fill the shorter side of the picture.
    """
    front = n // 2
    focal_px = 0.5 * min(width, height) * distance_m / radius_m
    cameras = []
    for i in range(n):
        side = (i - front) / max(front if i < front else n - 1 - front, 1)
        elevation = _HEIGHTS_RAD[(i - front) % 2]
        cameras.append(from_angles(side * _ARC_RAD, elevation, distance_m, focal_px=focal_px, width=width, height=height, target=target))
    return cameras
