"""The identity modes: displacements [V, 3] in cm at one standard deviation. Symmetric, smooth, each about one measure of the head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sculpt.face import MOUTH_Y, bump, lip_curves, smoothstep
from sculpt.motion import Moving, lids, mirror, rigid_pieces

Field = Callable[[np.ndarray], np.ndarray]


def _axes(x: object = 0.0, y: object = 0.0, z: object = 0.0) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x, y, z), -1).astype(float)


def _fields() -> dict[str, Field]:
    """Fields over space; they move rigid pieces too, by their value at the piece's anchor."""

    def near(p: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return bump(np.abs(p[:, 0]), p[:, 1], cx, cy, sx, sy) * smoothstep(p[:, 2], 0.5, 4.5)

    def head(p: np.ndarray) -> np.ndarray:  # fades out down the neck
        return smoothstep(p[:, 1], -13.0, -7.0)

    def side(p: np.ndarray) -> np.ndarray:  # -1 right, +1 left, smooth between
        return np.tanh(p[:, 0] / 1.5)

    return {
        "head_width": lambda p: _axes(x=0.045 * p[:, 0] * smoothstep(p[:, 1], -3.0, 5.0)),
        "head_length": lambda p: _axes(z=0.040 * (p[:, 2] + 1.2) * head(p) * (0.35 + 0.65 * smoothstep(-p[:, 2], -4.0, 2.0))),
        "head_height": lambda p: _axes(y=0.055 * np.maximum(p[:, 1] - 3.0, 0) ** 1.5 / 2.5),
        "temples": lambda p: _axes(x=0.30 * side(p) * bump(p[:, 1], p[:, 2], 6.5, 2.5, 2.2, 3.0)),
        "forehead_slope": lambda p: _axes(z=0.40 * near(p, 0, 8.3, 4.5, 2.0)),
        "brow_ridge": lambda p: _axes(z=0.26 * near(p, 2.2, 5.3, 2.6, 0.9)),
        "brow_height": lambda p: _axes(y=0.24 * near(p, 2.8, 5.5, 2.6, 0.9)),
        "eye_distance": lambda p: _axes(x=0.11 * side(p) * near(p, 3.2, 3.4, 2.5, 2.2)),
        "eye_depth": lambda p: _axes(z=-0.10 * near(p, 3.2, 3.3, 2.6, 2.1)),
        "cheekbones": lambda p: _axes(x=0.22 * side(p), z=0.20) * near(p, 5.0, 0.7, 1.7, 1.4)[:, None],
        "cheek_fullness": lambda p: _axes(x=0.34 * side(p), z=0.26) * near(p, 4.5, -2.7, 1.8, 2.0)[:, None],
        "face_width": lambda p: _axes(x=0.038 * p[:, 0] * bump(p[:, 1], p[:, 2], -0.5, 4.5, 3.2, 5.0)),
        "nose_length": lambda p: _axes(y=-0.30 * near(p, 0, -1.0, 1.7, 1.1)),
        "nose_projection": lambda p: _axes(z=0.30 * near(p, 0, -0.5, 1.1, 1.3)),
        "nose_width": lambda p: _axes(x=0.16 * p[:, 0] * near(p, 0, -0.9, 1.6, 1.0)),
        "nose_bridge": lambda p: _axes(z=0.22 * near(p, 0, 2.0, 0.8, 1.1)),
        "nose_tip": lambda p: _axes(y=0.12, z=0.20) * near(p, 0, -0.9, 0.7, 0.5)[:, None],
        "mouth_width": lambda p: _axes(x=0.085 * p[:, 0] * near(p, 0, MOUTH_Y, 3.0, 1.2)),
        "mouth_height": lambda p: _axes(y=0.20 * near(p, 0, MOUTH_Y, 2.8, 1.2)),
        "mouth_forward": lambda p: _axes(z=0.24 * near(p, 0, MOUTH_Y, 2.3, 1.6)),
        "jaw_width": lambda p: _axes(x=0.055 * p[:, 0] * bump(p[:, 1], p[:, 2], -5.4, 3.0, 3.0, 5.0)),
        "jaw_length": lambda p: _axes(y=-0.42 * smoothstep(-p[:, 1], 3.6, 7.5) * head(p) * smoothstep(p[:, 2], -2.0, 5.0)),
        "chin_forward": lambda p: _axes(z=0.42 * near(p, 0, -7.1, 2.0, 1.3)),
        "chin_width": lambda p: _axes(x=0.11 * p[:, 0] * near(p, 0, -7.3, 2.4, 1.2)),
        "neck_width": lambda p: _axes(x=0.075 * p[:, 0], z=0.06 * (p[:, 2] + 1.6)) * bump(p[:, 1], 0, -12.0, 0, 3.0, 1.0)[:, None],
    }  # fmt: skip


def identity_modes(moving: Moving) -> dict[str, np.ndarray]:
    """All modes by name."""
    p = moving.head.vertices
    modes = {name: rigid_pieces(moving, field, field(p)) for name, field in _fields().items()}
    modes["lips_fullness"] = _lips(moving)
    opening = lids(moving, 0.07, -0.05)
    modes["eye_opening"] = opening + mirror(moving, opening)
    modes["ear_size"], modes["ear_flare"] = _ears(moving)
    return modes


def _lips(moving: Moving) -> np.ndarray:
    x, y, z = moving.head.ajar.T
    upper, line, lower = lip_curves(x)
    up = (1 - moving.head.lower) * np.exp(-(((y - upper - 0.1) / 0.35) ** 2))
    down = moving.head.lower * np.exp(-(((y - lower + 0.1) / 0.4) ** 2))
    swell = np.exp(-(((y - line) / 0.75) ** 2))
    gate = np.exp(-((x / 2.1) ** 4)) * smoothstep(z, 3.0, 6.0) * moving.soft
    return gate[:, None] * _axes(y=0.14 * (up - down), z=0.16 * swell)


def _ears(moving: Moving) -> tuple[np.ndarray, np.ndarray]:
    p = moving.head.vertices
    size, flare = np.zeros_like(p), np.zeros_like(p)
    for sign, side in ((1, "left"), (-1, "right")):
        mask = moving.head.part(f"{side}_ear")
        offset = p[mask] - np.array([sign * 7.0, 0.3, -1.0])
        size[mask] = 0.07 * offset * [0.5, 1, 1]
        flare[mask] = _axes(x=sign * 0.12 * np.maximum(-offset[:, 2], 0))
    return size, flare
