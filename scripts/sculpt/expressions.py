"""The expressions, under ARKit's names: displacements [V, 3] in cm at coefficient 1. Left is the subject's left (+x)."""

from __future__ import annotations

import numpy as np

from sculpt.face import AJAR, MOUTH_HALF, MOUTH_Y, bump, lip_curves, smoothstep
from sculpt.motion import Moving, jaw_rotation, lids, mirror


def expressions(moving: Moving) -> dict[str, np.ndarray]:
    """All expressions; one-sided ones come as Left and its mirror image Right."""
    out = {**_jaw(moving), **_mouth(moving), **_middle(moving)}
    for name, field in {**_sides(moving), **_eyes(moving)}.items():
        out[f"{name}Left"], out[f"{name}Right"] = field, mirror(moving, field)
    left = out.pop("mouthShift")
    out["mouthLeft"], out["mouthRight"] = left, mirror(moving, left)
    slide = out.pop("jawShift")
    out["jawLeft"], out["jawRight"] = slide, mirror(moving, slide)
    return dict(sorted(out.items()))


def _at(moving: Moving, weight: np.ndarray, direction: tuple[float, float, float]) -> np.ndarray:
    """`weight` x `direction` on the soft parts of the front."""
    z = moving.head.vertices[:, 2]
    return (weight * moving.soft * smoothstep(z, 1.0, 4.0))[:, None] * np.asarray(direction)


def _jaw(moving: Moving) -> dict[str, np.ndarray]:
    shift = moving.jaw[:, None] * np.array([[0.75, 0, 0]])
    return {
        "jawOpen": jaw_rotation(moving, 0.32, (0, -0.05, 0.25)),
        "jawForward": moving.jaw[:, None] * np.array([[0, -0.05, 0.75]]),
        "jawShift": shift,
    }


def _mouth(moving: Moving) -> dict[str, np.ndarray]:
    x, y, _ = moving.head.ajar.T
    lower = moving.head.lower
    _, line, _ = lip_curves(x)
    around = np.exp(-((x / 3.1) ** 4)) * np.exp(-(((y - MOUTH_Y) / 1.35) ** 2))
    lips = np.exp(-((x / 2.5) ** 4)) * np.exp(-(((y - line) / 0.85) ** 2))
    up, down = (1 - lower) * lips, lower * lips
    inwards = _at(moving, -x, (1, 0, 0))
    opened = jaw_rotation(moving, 0.32, (0, -0.05, 0.25))
    # Seals the lips while the jaw is open: they meet where the upper lip hangs down by 0.4 of the gap.
    seal = np.exp(-((x / 2.6) ** 6)) * np.exp(-((np.maximum(np.abs(y - line) - AJAR - 0.1, 0) / 0.75) ** 2))
    close = seal[:, None] * (-lower[:, None] * opened - 0.4 * np.array([0, 2.75, 0.5]))
    return {
        "mouthPucker": _at(moving, around, (0, 0, 0.75)) + 0.40 * around[:, None] * inwards + _at(moving, up, (0, 0.05, 0.15)),
        "mouthFunnel": _at(moving, around, (0, 0, 0.6)) + 0.26 * around[:, None] * inwards
        + _at(moving, up, (0, 0.32, 0.15)) + _at(moving, down, (0, -0.42, 0.15)),
        "mouthShift": _at(moving, around, (0.85, 0, -0.05)),
        "mouthClose": close * _at(moving, np.ones_like(x), (1, 1, 1)),
        "mouthRollUpper": _at(moving, up, (0, -0.26, -0.42)),
        "mouthRollLower": _at(moving, down, (0, 0.26, -0.48)),
        "mouthShrugUpper": _at(moving, up, (0, 0.22, 0.28)),
        "mouthShrugLower": _at(moving, down + 0.5 * lower * bump(np.abs(x), y, 0, -5.8, 1.6, 1.0), (0, 0.38, 0.28)),
    }  # fmt: skip


def _middle(moving: Moving) -> dict[str, np.ndarray]:
    x, y, _ = moving.head.ajar.T
    puff = bump(np.abs(x), y, 3.9, -2.9, 1.3, 1.5) + 0.35 * bump(np.abs(x), y, 0, -3.6, 2.5, 1.5)
    outwards = np.stack([0.75 * np.tanh(x / 3), np.zeros_like(x), np.full_like(x, 0.65)], -1)
    return {
        "browInnerUp": _at(moving, bump(np.abs(x), y, 1.0, 5.3, 1.1, 0.9) + 0.5 * bump(np.abs(x), y, 0.6, 6.6, 1.5, 1.1), (0, 0.6, 0.05)),
        "cheekPuff": _at(moving, puff, (1, 1, 1)) * outwards,
    }


def _sides(moving: Moving) -> dict[str, np.ndarray]:
    x, y, _ = moving.head.ajar.T
    lower = moving.head.lower
    _, line, _ = lip_curves(x)
    beyond = np.maximum(x - MOUTH_HALF, 0)
    corner = smoothstep(x, -0.2, 2.4) * np.exp(-((beyond / 1.3) ** 2)) * np.exp(-(((y - MOUTH_Y) / 1.15) ** 2))
    tip = bump(x, y, MOUTH_HALF, MOUTH_Y, 0.9, 0.8)
    cheek = bump(x, y, 3.7, -0.2, 1.3, 1.1)
    half = smoothstep(x, -0.5, 0.9)
    upper_side = (1 - lower) * half * bump(x, y, 1.2, -2.75, 1.0, 0.8)
    lower_side = lower * half * bump(x, y, 1.2, -4.25, 1.0, 0.8)
    press = half * np.exp(-((x / 2.4) ** 4)) * np.exp(-(((y - line) / (0.5 + AJAR)) ** 2))
    nose = bump(x, y, 1.25, -0.7, 0.55, 0.9)
    return {
        "mouthSmile": _at(moving, corner, (0.55, 0.62, -0.45)) + _at(moving, cheek, (0.12, 0.35, 0.30)),
        "mouthFrown": _at(moving, corner, (0.10, -0.62, -0.12)) + _at(moving, bump(x, y, 2.6, -5.0, 0.9, 0.8), (0, -0.15, 0.05)),
        "mouthStretch": _at(moving, corner, (0.68, -0.22, -0.40)),
        "mouthDimple": _at(moving, corner, (0.22, 0.06, -0.10)) + _at(moving, tip, (0.1, 0.05, -0.35)),
        "mouthUpperUp": _at(moving, upper_side, (0.02, 0.52, 0.12)),
        "mouthLowerDown": _at(moving, lower_side, (0.02, -0.52, 0.05)),
        "mouthPress": _at(moving, press * (1 - lower), (0, -0.12, -0.10)) + _at(moving, press * lower, (0, 0.14, -0.10)),
        "noseSneer": _at(moving, nose, (0.08, 0.40, 0.05)) + _at(moving, bump(x, y, 0.7, 2.2, 0.5, 0.9), (0, 0.15, 0.08))
        + _at(moving, upper_side, (0, 0.18, 0.05)),
        "cheekSquint": _at(moving, bump(x, y, 3.7, 1.1, 1.3, 0.85), (0.05, 0.38, 0.18)),
        "browDown": _at(moving, bump(x, y, 2.0, 5.3, 1.5, 0.85), (-0.14, -0.48, 0.10)),
        "browOuterUp": _at(moving, bump(x, y, 4.1, 5.3, 1.3, 0.9) + 0.4 * bump(x, y, 3.8, 6.5, 1.6, 1.1), (0, 0.55, 0.02)),
    }  # fmt: skip


def _eyes(moving: Moving) -> dict[str, np.ndarray]:
    x, y, _ = moving.head.ajar.T
    pouch = _at(moving, bump(x, y, 3.3, 2.1, 1.2, 0.4), (0, 0.16, 0.05))
    return {
        "eyeBlink": lids(moving, -0.90, 0.10, absolute=False),
        "eyeWide": lids(moving, 0.14, -0.05),
        "eyeSquint": lids(moving, -0.09, 0.20) + pouch,
        "eyeLookUp": lids(moving, 0.12, 0.08),
        "eyeLookDown": lids(moving, -0.26, -0.10),
        "eyeLookIn": lids(moving, -0.01, 0.01),
        "eyeLookOut": lids(moving, -0.015, 0.015),
    }
