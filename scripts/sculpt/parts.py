"""What is not skin: eyeballs, backs of the lids, the inside of the mouth, teeth, tongue, ears. Each a small grid of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sculpt import face
from sculpt.loft import loft

_EYE_RINGS = np.radians([0, 6, 11, 15, 20, 25, 29, 32, 38, 46, 56, 68, 82, 98, 118, 145, 180])  # pupil ends at 11, iris at 29 degrees
_EYE_SEGMENTS = 24


@dataclass(frozen=True)
class Part:
    """A patch with texture coordinates in its own unit square."""

    vertices: np.ndarray  # [N, 3] cm
    faces: np.ndarray  # [F, 3]
    uvs: np.ndarray  # [F, 3, 2] of the corners
    lower: np.ndarray  # [N] 1 where it belongs to the jaw


def grid_faces(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles of a grid of vertices; `closed` joins the last column to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def eyeball() -> Part:
    """The left eyeball: poles on the axis of sight, rings at the edges of pupil and iris, a slight bulge of the cornea."""
    angle, turn = np.meshgrid(_EYE_RINGS[1:-1], np.arange(_EYE_SEGMENTS) * 2 * np.pi / _EYE_SEGMENTS, indexing="ij")
    ring = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], -1).reshape(-1, 3)
    unit = np.concatenate([[[0, 0, 1]], ring, [[0, 0, -1]]])
    polar = np.concatenate([[0], angle.ravel(), [np.pi]])
    bulge = 1 + 0.02 * np.maximum(0, 1 - (polar / 0.6) ** 2)
    reach = np.sqrt(polar / np.pi) * 0.49  # the iris gets more of the texture than its area
    around = np.concatenate([[0], turn.ravel(), [0]])
    uvs = 0.5 + reach[:, None] * np.stack([np.cos(around), np.sin(around)], -1)
    last = len(unit) - 1
    a = np.arange(_EYE_SEGMENTS)
    b = np.roll(a, -1)
    front = np.stack([np.zeros_like(a), 1 + a, 1 + b], -1)
    end = last - _EYE_SEGMENTS
    back = np.stack([end + a, np.full_like(a, last), end + b], -1)
    body = 1 + grid_faces(len(_EYE_RINGS) - 2, _EYE_SEGMENTS, closed=True)
    faces = np.concatenate([front, body, back])
    corners = uvs[faces]
    corners[faces == last] = 0.5 + 0.5 * np.stack(
        [np.cos(turns := (a + 0.5) * 2 * np.pi / _EYE_SEGMENTS), np.sin(turns)], -1
    )  # a pole for each
    return Part(face.EYE + face.EYE_RADIUS * bulge[:, None] * unit, faces, corners, np.zeros(len(unit)))


def lid_backs(margin: np.ndarray) -> np.ndarray:
    """Three loops [3, n, 3] that continue the lid margin [n, 3] inwards, close over the eyeball and out of sight."""
    offset = margin - face.EYE
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    direction = offset / distance
    thin = face.EYE + direction * np.maximum(distance - face.LID, face.EYE_RADIUS + 0.03)
    loops = [thin]
    polar = np.arccos(np.clip(direction[:, 2], -1, 1))
    turn = np.arctan2(direction[:, 1], direction[:, 0])
    for further in (0.3, 0.75):
        p = np.minimum(polar + further, 1.75)
        unit = np.stack([np.sin(p) * np.cos(turn), np.sin(p) * np.sin(turn), np.cos(p)], -1)
        loops.append(face.EYE + unit * (face.EYE_RADIUS + 0.03))
    return np.stack(loops)


def mouth_bag(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loops [6, n, 3] from the line of the lips [n, 3] to the throat, and how much each point follows the jaw [6, n]."""
    n = len(loop)
    turn = np.arange(n) * 2 * np.pi / n
    side, up = np.cos(turn), np.sin(turn)
    x, y, z = loop.T
    middle = face.MOUTH_Y - 0.1
    rings = [
        np.stack([0.99 * x, y + 0.06 * up, z - 0.35], -1),
        np.stack([0.98 * x, middle + np.where(up > 0, 0.6, 0.5) * up, z - 0.65 - 0.25 * np.maximum(-up, 0)], -1),
        np.stack([1.0 * x, middle + np.where(up > 0, 1.25, 0.9) * up, z - 0.85 - 0.5 * np.maximum(-up, 0)], -1),
        np.stack([3.0 * side, middle + 1.6 * up - 0.1, np.full(n, 5.8)], -1),
        np.stack([2.6 * side, middle + 1.6 * up - 0.1, np.full(n, 3.2)], -1),
        np.stack([0.02 * side, middle + 0.02 * up - 0.1, np.full(n, 2.2)], -1),
    ]
    follow = face.smoothstep(-up, -0.35, 0.35)
    return np.stack(rings), follow * np.array([1, 1, 1, 0.9, 0.6, 0.4])[:, None]


def _arch(front: float, half_width: float, depth: float, turn: np.ndarray) -> np.ndarray:
    return np.stack([half_width * np.sin(turn), front - depth * (1 - np.cos(turn))], -1)  # x, z


def teeth(front: float, upper: bool) -> Part:
    """A row of fourteen teeth with its gum's edge; `front` is the z of the front teeth."""
    count, n = 14, 14 * 5 + 1
    share = np.linspace(0, count, n)
    turn = np.radians(84) * (2 * share / count - 1)
    between = np.abs(np.sin(np.pi * share)) ** 0.45  # 0 between two teeth
    sign = 1.0 if upper else -1.0
    setback = 0.0 if upper else 0.22
    edge = face.MOUTH_Y + (-0.10 if upper else -0.22)
    molar = np.minimum(np.abs(turn), 1.2) ** 2
    rows = []
    for height, inset, cut in ((1.15, 0.05, 0.0), (0.75, 0.0, 0.3), (0.3, 0.0, 0.5), (0.0, 0.1, 1.0), (0.0, 0.3, 1.0), (0.9, 0.75, 0.2)):
        x, z = _arch(front - setback - inset, 2.65 - inset, 4.3, turn).T
        groove = 0.07 * (1 - between) * (cut > 0)
        notch = 0.10 * (1 - between) * cut * (height < 0.1)
        y = edge + sign * (height + notch - 0.06 * molar * (height < 0.4))
        rows.append(np.stack([x * (1 - groove / 2.65), y, z - groove * np.cos(turn)], -1))
    vertices = np.concatenate(rows)
    u, v = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, len(rows)))
    faces = grid_faces(len(rows), n, closed=False)
    faces = faces if upper else faces[:, [0, 2, 1]]
    uvs = np.stack([u.ravel(), v.ravel()], -1)
    return Part(vertices, faces, uvs[faces], np.full(len(vertices), 0.0 if upper else 1.0))


def tongue() -> Part:
    """The upper half of a flattened ellipsoid on the floor of the mouth."""
    rows, columns = 8, 17
    t, s = np.meshgrid(np.linspace(0.02, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    along = np.sin(t * np.pi / 2)
    z = 6.75 - 3.4 * (1 - np.cos(t * np.pi / 2))
    x = 1.6 * s * along**0.7
    y = face.MOUTH_Y - 1.25 + 0.75 * along * np.sqrt(np.maximum(1 - s**2, 0)) - 0.12 * np.exp(-((s / 0.12) ** 2)) * along
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    uvs = np.stack([(s + 1) / 2, t], -1).reshape(-1, 2)
    faces = grid_faces(rows, columns, closed=False)
    return Part(vertices, faces, uvs[faces], np.full(len(vertices), 0.9))


def ear() -> Part:
    """The left ear: rings from its buried back over the helix into the concha."""
    columns = 36
    turn = np.arange(columns) * 2 * np.pi / columns  # 0 back, 90 degrees top, 180 front, 270 lobe
    c, s = np.cos(turn), np.sin(turn)
    frontal = face.smoothstep(-c, 0.25, 0.95) * face.smoothstep(-np.abs(s), -0.95, -0.4)
    lobe = face.smoothstep(-s, 0.45, 0.9)
    # Per ring: share of the outline, then heights over the ear's plane: in general, at the lobe (no folds), where it grows from the cheek.
    rings = (
        (0.55, -1.2, -1.0, -1.3), (0.80, -0.35, -0.3, -1.0), (0.96, 0.15, 0.10, -0.7), (1.02, 0.38, 0.24, -0.5),
        (0.99, 0.56, 0.36, -0.4), (0.91, 0.58, 0.42, -0.3), (0.84, 0.40, 0.43, -0.15), (0.77, 0.26, 0.42, 0.0),
        (0.68, 0.38, 0.40, 0.18), (0.60, 0.46, 0.36, 0.36), (0.50, 0.36, 0.28, 0.40), (0.40, 0.10, 0.10, 0.22),
        (0.27, 0.0, 0.0, 0.02), (0.10, -0.06, -0.06, -0.06), (0.001, -0.08, -0.08, -0.08),
    )  # fmt: skip
    outline_a = (
        1.72 * np.sign(c) * np.abs(c) ** np.where(s < 0, 0.75, 0.95) * (1 - 0.30 * np.maximum(-s, 0) ** 1.5) - 0.30 * np.maximum(-s, 0) ** 2
    )
    outline_b = 3.15 * s
    vertices = []
    for share, normal, at_lobe, at_front in rings:
        n = normal * (1 - lobe) + at_lobe * lobe
        n = n * (1 - frontal) + at_front * frontal
        pull = 1 - share  # inner rings gather round the concha, which lies low and in front
        a = outline_a * share - 0.35 * pull
        b = outline_b * share - 0.45 * pull
        vertices.append(np.stack([a, b, n], -1))
    a, b, n = np.concatenate(vertices).T
    tilt, flare = np.radians(14), np.radians(19)
    up, back = b * np.cos(tilt) - a * np.sin(tilt), a * np.cos(tilt) + b * np.sin(tilt)
    out = n * np.cos(flare) + (back + 1.5) * np.sin(flare) + 0.09 * up
    back = back * np.cos(flare) - n * np.sin(flare)
    root = float(loft(np.array([np.radians(92)]), np.array([7.3]))[0, 0])
    points = np.stack([root + 0.05 + out, 0.35 + up, -1.55 - back], -1)
    share = np.linspace(0.98, 0.02, len(rings))
    uvs = 0.5 + 0.5 * (share[:, None, None] * np.stack([-c, s], -1)).reshape(-1, 2)
    faces = grid_faces(len(rings), columns, closed=True)[:, [0, 2, 1]]
    return Part(points, faces, uvs[faces], np.zeros(len(points)))


def mirrored(part: Part) -> Part:
    """The same on the subject's right."""
    return Part(part.vertices * [-1, 1, 1], part.faces[:, [0, 2, 1]], part.uvs[:, [0, 2, 1]] * [-1, 1] + [1, 0], part.lower)
