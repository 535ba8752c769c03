"""What moves with what: skinning shares, the mirror image, rigid pieces, and lids that slide over the eyeball."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sculpt.face import EYE, MOUTH_Y, smoothstep
from sculpt.head import LABELS, Head

HINGE = np.array([0.0, 0.3, 0.5])  # axis of the jaw joint
RIGID = ("left_eye", "right_eye", "left_ear", "right_ear", "upper_teeth", "lower_teeth", "tongue")
_ANCHORS = {"ear": (7.2, 0.3, -1.6), "teeth": (0.0, MOUTH_Y, 8.6)}


@dataclass(frozen=True)
class Moving:
    """The head with what its motions need."""

    head: Head
    jaw: np.ndarray  # [V] share of the jaw joint
    neck: np.ndarray  # [V] share of the head (neck joint and below it) against the root
    soft: np.ndarray  # [V] bool: skin, lids and the lining of the mouth
    twin: np.ndarray  # [V] number of the mirror image


def prepare(head: Head) -> Moving:
    _, y, z = head.vertices.T
    skin = head.part("skin")
    height = y + 0.12 * (z - 3)
    neck = np.where(skin, smoothstep(height, -14.5, -7.5), 1.0)
    fades = smoothstep(z, -0.8, 3.2) * smoothstep(height, -11.0, -8.0)
    jaw = head.lower * np.where(skin, fades, 1.0)
    return Moving(head, jaw, neck, ~head.part(*RIGID), _twins(head))


def _twins(head: Head) -> np.ndarray:
    """Number of each vertex's mirror image. Parts are kept apart: their vertices may lie in the same place."""
    swapped = [LABELS.index(_other_side(name)) for name in LABELS]
    marked = np.concatenate([head.ajar, 100.0 * head.label[:, None]], 1)
    mirrored = np.concatenate([head.ajar * [-1, 1, 1], 100.0 * np.array(swapped)[head.label][:, None]], 1)
    distance, twin = cKDTree(marked).query(mirrored)
    if distance.max() > 1e-6 or (twin[twin] != np.arange(len(twin))).any():
        raise ValueError(f"the head is not symmetric: {distance.max():.2g} cm")
    return twin


def _other_side(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)


def mirror(moving: Moving, field: np.ndarray) -> np.ndarray:
    """The field [V, 3] on the other side."""
    return field[moving.twin] * [-1, 1, 1]


def jaw_rotation(moving: Moving, angle: float, shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Displacement [V, 3] of the jaw turned open by `angle` about its hinge and shifted."""
    offset = moving.head.vertices - HINGE
    turned = offset.copy()
    turned[:, 1] = offset[:, 1] * np.cos(angle) - offset[:, 2] * np.sin(angle)
    turned[:, 2] = offset[:, 1] * np.sin(angle) + offset[:, 2] * np.cos(angle)
    return moving.jaw[:, None] * (turned - offset + np.asarray(shift))


def lids(moving: Moving, upper: float, lower: float, *, absolute: bool = True) -> np.ndarray:
    """Displacement [V, 3] of the left eye's lids about the eyeball's horizontal axis.

    Args:
        upper, lower: How far the margins turn up: radians, or as a share of the opening if not `absolute`.
    """
    head = moving.head
    margin = head.part("skin") & (_margin(head))
    x, offset = head.vertices[:, 0], head.vertices - EYE
    angle = np.arctan2(offset[:, 1], offset[:, 2])
    reach = np.hypot(offset[:, 1], offset[:, 2])
    open_upper, open_lower = _margin_angles(head, margin, angle)
    top, bottom = np.interp(x, *open_upper), np.interp(x, *open_lower)
    scale = 1.0 if absolute else top - bottom
    up = (angle > (top + bottom) / 2).astype(float)
    past = np.where(up > 0, angle - top, bottom - angle)
    share = 1 - smoothstep(past, 0.0, np.where(up > 0, 0.75, 0.70))
    aside = np.maximum(np.abs(offset[:, 0]) - 1.4, 0)
    share = (
        share
        * np.exp(-((aside / 0.3) ** 2))
        * (moving.soft & (x > 0) & (np.abs(offset[:, 0]) < 2.6) & (reach < 2.6) & (offset[:, 2] > -0.9))
    )
    turn = share * scale * np.where(up > 0, upper, lower)
    lift = 1 + 0.05 * np.minimum(np.abs(turn), 1)  # the chord of a linear shape must clear the eyeball
    moved = np.stack([offset[:, 0], lift * reach * np.sin(angle + turn), lift * reach * np.cos(angle + turn)], -1)
    return np.where((share > 0)[:, None], moved - offset, 0.0)


def _margin(head: Head) -> np.ndarray:
    """Skin vertices on the margin of the left lids: those that the backs of the lids join."""
    lids_faces = head.faces[head.part("lids")[head.faces].any(1)]
    mask = np.zeros(len(head.vertices), bool)
    mask[lids_faces] = True
    return mask & head.part("skin") & (head.vertices[:, 0] > 0)


def _margin_angles(
    head: Head, margin: np.ndarray, angle: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    numbers = np.nonzero(margin)[0]
    x = head.vertices[numbers, 0]
    corners = numbers[[x.argmin(), x.argmax()]]
    chord = np.interp(head.vertices[numbers, 0], head.vertices[corners, 0], angle[corners])
    is_corner = np.isin(numbers, corners)
    curves = []
    for keep in (is_corner | (angle[numbers] >= chord), is_corner | (angle[numbers] < chord)):
        order = numbers[keep][np.argsort(head.vertices[numbers[keep], 0])]
        curves.append((head.vertices[order, 0], angle[order]))
    return curves[0], curves[1]


def rigid_pieces(moving: Moving, field_at: object, displacement: np.ndarray) -> np.ndarray:
    """`displacement` [V, 3] with rigid pieces moved as one by the field at their anchors, and the surroundings of the eyes with them."""
    out, p = displacement.copy(), moving.head.vertices
    for sign, side in ((1, "left"), (-1, "right")):
        flip = np.array([sign, 1, 1])
        at_eye, at_ear = field_at(np.stack([EYE * flip, np.array(_ANCHORS["ear"]) * flip]))
        distance = np.linalg.norm(p - EYE * flip, axis=1)
        near = (1 - smoothstep(distance, 1.5, 3.1))[:, None] * moving.soft[:, None]
        out = out * (1 - near) + near * at_eye
        out[moving.head.part(f"{side}_eye")] = at_eye
        out[moving.head.part(f"{side}_ear")] = at_ear
    mouth = field_at(np.array([_ANCHORS["teeth"]]))[0] * [0, 1, 1]
    out[moving.head.part("upper_teeth", "lower_teeth", "tongue")] = mouth
    return out
