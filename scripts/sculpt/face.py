"""Facial features as fields over the front of the loft: what is added to z at (x, y), and how the mouth, sculpted ajar, is closed."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

EYE = np.array([3.15, 3.3, 6.4])  # centre of the left eyeball
EYE_RADIUS = 1.2
LID = 0.17  # thickness of the lids
MOUTH_Y = -3.55
MOUTH_HALF = 2.45  # half the width of the mouth
AJAR = 0.32  # the mouth is sculpted open by this much up and down, so that lips have room in the texture; `close_mouth` shuts it


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The larger of the two, with a fillet where they differ by less than k."""
    h = np.clip(0.5 + 0.5 * (a - b) / k, 0, 1)
    return b + (a - b) * h + k * h * (1 - h)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def lid_curves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the upper and lower lid margins of the left eye at x; they meet in the corners."""
    t = np.clip((x - EYE[0]) / 1.45, -1, 1)
    corner = EYE[1] - 0.06 + 0.10 * t  # the outer corner sits a little higher
    arch = np.maximum(1 - np.abs(t) ** 2.2, 0)
    return corner + 0.53 * arch * (1 - 0.12 * t), corner - 0.45 * arch * (1 + 0.12 * t)


def lip_curves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of the upper vermilion border, the line where the lips meet and the lower border, mouth closed."""
    t = np.clip(np.abs(x) / MOUTH_HALF, 0, 1)
    line = MOUTH_Y + 0.05 * np.cos(np.pi * t * 1.5) * (1 - t) - 0.05 * t**2
    upper = line + (1 - t**1.7) * 0.60 - 0.09 * np.exp(-((x / 0.32) ** 2))
    lower = line - np.maximum(1 - t**2.3, 0) ** 0.8 * 0.76
    return upper, line, lower


def close_mouth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height after closing of points sculpted at (x, y)."""
    _, line, _ = lip_curves(x)
    from_line = y - line
    gap = AJAR * opening(x)
    return y - np.sign(from_line) * gap * np.exp(-((np.maximum(np.abs(from_line) - gap, 0) / 0.9) ** 2)) * 0.97


def opening(x: np.ndarray) -> np.ndarray:
    """How far the lips are apart in the sculpt, as a share of AJAR: an ellipse, gone at the corners and beyond."""
    t = np.abs(x) / MOUTH_HALF
    return np.sqrt(np.maximum(1 - t**2, 0)) * (t < 1)


# Height of the ridge, its half width and the height of the flanks, from below the nose to the forehead.
_NOSE_PROFILE = PchipInterpolator(
    (-2.1, -1.75, -1.4, -1.0, -0.5, 0.0, 0.6, 1.4, 2.4, 3.4, 4.3, 5.2),
    np.stack([
        (0, 0.45, 1.35, 2.1, 2.45, 2.42, 2.15, 1.68, 1.12, 0.62, 0.25, 0),
        (0.9, 0.9, 0.9, 0.95, 1.0, 0.97, 0.9, 0.84, 0.80, 0.80, 0.9, 1.0),
        (0, 0.1, 0.4, 0.6, 0.65, 0.6, 0.5, 0.4, 0.3, 0.15, 0, 0),
    ], -1),
)  # fmt: skip


def _nose(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the nose above the face."""
    ridge, width, base = _NOSE_PROFILE(np.clip(y, -2.1, 5.2)).T
    bridge = ridge * np.exp(-((np.abs(x) / width) ** 2.0))
    flank = base * np.exp(-((np.abs(x) / 1.55) ** 2.6))
    tip = 0.38 * bump(x, y, 0, -0.5, 0.72, 0.55)
    wing = 1.30 * np.exp(-(((np.maximum(np.abs(x) - 0.85, 0) / 0.68) ** 2) ** 1.3) - (((y + 0.95) / 0.75) ** 2) ** 1.3)
    nose = smooth_max(smooth_max(bridge + tip, flank, 0.5) - 0.125, wing, 0.7) - 0.175
    return np.maximum(nose, 0)


def _lips(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The swelling of the lips, on the mouth ajar."""
    upper, line, lower = lip_curves(x)
    gap = AJAR * opening(x)
    t = np.clip(np.abs(x) / MOUTH_HALF, 0, 1)
    up = np.clip((y - line - gap) / np.maximum(upper - line, 0.08), -1, 3)
    low = np.clip((line - gap - y) / np.maximum(line - lower, 0.08), -1, 3)
    fade = (1 - t**3) * (t < 1)
    upper_lip = np.where(y > line, 0.34 * np.exp(-(((up - 0.45) / 0.5) ** 2)), 0)
    lower_lip = np.where(y <= line, 0.42 * np.exp(-(((low - 0.5) / 0.5) ** 2)), 0)
    return fade * (upper_lip + lower_lip) - 0.12 * bump(np.abs(x), y, MOUTH_HALF + 0.1, MOUTH_Y, 0.3, 0.3)


def features(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Points of the loft with the features on them, mouth ajar: [N, 3]."""
    ax = np.abs(x)
    front = smoothstep(z, 0.0, 3.0)
    relief = (
        0.36 * bump(ax, y, 2.8, 5.2, 1.5, 0.65)  # brow ridge
        + 0.22 * bump(ax, y, 0, 5.2, 1.0, 0.7)
        - 0.85 * bump(ax, y, 3.0, 3.2, 1.45, 1.0)  # eye socket
        - 0.35 * bump(ax, y, 1.5, 3.2, 0.6, 0.9)
        + 0.42 * bump(ax, y, 3.1, 1.95, 1.4, 0.55)  # below the lower lid
        + 0.40 * bump(ax, y, 4.9, 1.0, 1.4, 1.0)  # cheekbone
        + 0.35 * bump(ax, y, 2.8, 0.4, 1.2, 0.9)
        - 0.30 * bump(ax, y, 4.9, -3.0, 1.1, 1.6)  # hollow of the cheek
        + 0.45 * bump(ax, y, 0, -3.3, 2.0, 1.6)  # teeth behind the lips
        - 0.38 * bump(ax, y, 0, -5.45, 1.7, 0.5)  # above the chin
        + 0.62 * bump(ax, y, 0, -7.1, 1.5, 0.9)  # chin
        - 0.10 * bump(ax, y, 0, -2.3, 0.2, 0.5)  # philtrum
        + 0.06 * bump(ax, y, 0.42, -2.4, 0.16, 0.5)
        - 0.16
        * np.exp(-(((ax - 1.9 - 0.42 * (-1.2 - y)) / 0.35) ** 2))
        * smoothstep(-y, 0.9, 1.6)
        * smoothstep(y, -4.6, -2.6)  # cheek fold
    )
    nose = _nose(x, y)
    z = z + front * (relief + nose + _lips(x, y))
    distance = np.hypot(ax - EYE[0], y - EYE[1])
    outer = EYE_RADIUS + LID
    inner = np.minimum(distance, 0.85 * outer)
    cap = EYE[2] + np.sqrt(outer**2 - inner**2) - 1.2 * (distance - inner) - 1.5 * (distance - inner) ** 2
    near = distance < 1.7 * outer
    z = np.where((front > 0) & near, smooth_max(z, cap, 0.7 * front + 1e-6), z)
    crease_y = lid_curves(ax)[0] + 0.42
    crease = 0.09 * np.exp(-(((y - crease_y) / 0.12) ** 2)) * np.exp(-(((ax - EYE[0]) / 1.15) ** 4))
    z = z - front * crease
    y = y - 0.20 * front * nose * smoothstep(-y, -2.5, 0.5)
    nostril = bump(ax, z, 0.58, 9.15, 0.20, 0.36) * (1 - smoothstep(y, -1.5, -1.15)) * smoothstep(y, -2.3, -1.9)
    return np.stack([x, y + 0.5 * nostril, z], -1)
