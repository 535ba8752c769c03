"""All parts in one mesh: labels, texture atlas, jaw membership, the iBUG-68 points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sculpt import face, parts
from sculpt.loft import N_STATIONS, find, loft
from sculpt.mesh import N_EYE, N_LIP_LOOPS, N_MOUTH, Skin, build_skin

LABELS = ("skin", "lids", "mouth", "upper_teeth", "lower_teeth", "tongue", "left_eye", "right_eye", "left_ear", "right_ear")

# Texture atlas: corner and size of each part's rectangle; the skin has all above the strip at the bottom.
_STRIP = 0.15
_RECTS = {
    "left_eye": (0.005, 0.005, 0.14, 0.14), "right_eye": (0.155, 0.005, 0.14, 0.14), "left_ear": (0.305, 0.005, 0.14, 0.14),
    "right_ear": (0.455, 0.005, 0.14, 0.14), "mouth": (0.605, 0.005, 0.14, 0.14), "upper_teeth": (0.755, 0.08, 0.15, 0.065),
    "lower_teeth": (0.755, 0.005, 0.15, 0.065), "tongue": (0.915, 0.005, 0.08, 0.14),
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    vertices: np.ndarray  # [V, 3] cm, mouth closed
    ajar: np.ndarray  # [V, 3] cm, mouth as sculpted
    faces: np.ndarray  # [F, 3]
    uvs: np.ndarray  # [Vt, 2]
    uv_faces: np.ndarray  # [F, 3]
    label: np.ndarray  # [V] number in LABELS
    lower: np.ndarray  # [V] share of the jaw, before it fades out towards ears and neck
    lips: np.ndarray  # [V] bool
    landmarks: np.ndarray  # [68] vertex numbers

    def part(self, *names: str) -> np.ndarray:
        return np.isin(self.label, [LABELS.index(n) for n in names])


class _Assembly:
    """Collects vertices and, per corner of each face, texture coordinates."""

    def __init__(self) -> None:
        self.vertices: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.lower: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.corner_uvs: list[np.ndarray] = []
        self.count = 0

    def add_vertices(self, label: str, points: np.ndarray, lower: np.ndarray) -> np.ndarray:
        numbers = self.count + np.arange(len(points))
        self.vertices.append(points)
        self.labels.append(np.full(len(points), LABELS.index(label)))
        self.lower.append(lower)
        self.count += len(points)
        return numbers

    def add_faces(self, faces: np.ndarray, corner_uvs: np.ndarray) -> None:
        self.faces.append(faces)
        self.corner_uvs.append(corner_uvs)

    def add_part(self, label: str, part: parts.Part) -> None:
        numbers = self.add_vertices(label, part.vertices, part.lower)
        x, y, w, h = _RECTS[label]
        uvs = part.uvs * [w, h] + [x, y]
        self.add_faces(numbers[part.faces], uvs)

    def add_loops(self, label: str, first: np.ndarray, loops: np.ndarray, lower: np.ndarray, uvs: np.ndarray) -> None:
        """Bands from an existing loop `first` [n] through new loops [k, n, 3]; uvs [k + 1, n, 2]."""
        k, n = loops.shape[:2]
        numbers = np.concatenate([first, self.add_vertices(label, loops.reshape(-1, 3), lower.reshape(-1))])
        faces = parts.grid_faces(k + 1, n, closed=True)
        self.add_faces(numbers[faces], uvs.reshape(-1, 2)[faces])


def build_head() -> Head:
    """The sculpted head as one mesh."""
    skin = build_skin()
    assembly = _Assembly()
    assembly.add_vertices("skin", skin.closed, _lower_skin(skin.ajar))
    assembly.add_faces(skin.faces, _skin_uvs(skin))
    _add_lids(assembly, skin)
    bag, follow = parts.mouth_bag(skin.closed[skin.mouth])
    turn = np.arange(N_MOUTH) * 2 * np.pi / N_MOUTH
    x, y, w, h = _RECTS["mouth"]
    disc = np.linspace(0.49, 0.05, len(bag) + 1)[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    assembly.add_loops("mouth", skin.mouth, bag, follow, (0.5 + disc) * [w, h] + [x, y])
    front = float(skin.closed[skin.mouth, 2].max()) - 0.95
    assembly.add_part("upper_teeth", parts.teeth(front, upper=True))
    assembly.add_part("lower_teeth", parts.teeth(front, upper=False))
    assembly.add_part("tongue", parts.tongue())
    assembly.add_part("left_eye", parts.eyeball())
    assembly.add_part("right_eye", parts.mirrored(parts.eyeball()))
    assembly.add_part("left_ear", parts.ear())
    assembly.add_part("right_ear", parts.mirrored(parts.ear()))
    corners = np.concatenate(assembly.corner_uvs)
    uvs, uv_faces = np.unique(np.round(corners.reshape(-1, 2), 7), axis=0, return_inverse=True)
    vertices = np.concatenate(assembly.vertices)
    ajar = vertices.copy()
    ajar[: len(skin.ajar)] = skin.ajar
    return Head(
        vertices=vertices,
        ajar=ajar,
        faces=np.concatenate(assembly.faces),
        uvs=uvs,
        uv_faces=uv_faces.reshape(-1, 3),
        label=np.concatenate(assembly.labels),
        lower=np.concatenate(assembly.lower),
        lips=np.isin(np.arange(len(vertices)), _lip_vertices(skin)),
        landmarks=_ibug68(skin),
    )


def _lower_skin(ajar: np.ndarray) -> np.ndarray:
    """1 below the mouth, 0 above it; sharp between the lips, wider with the distance from the corners."""
    x, y = ajar[:, 0], ajar[:, 1]
    _, line, _ = face.lip_curves(x)
    half = 0.10 + 0.22 * face.opening(x) + 0.95 * np.maximum(np.abs(x) - 0.85 * face.MOUTH_HALF, 0)
    return face.smoothstep(line - y, -half, half)


def _add_lids(assembly: _Assembly, skin: Skin) -> None:
    """Backs of the lids; their texture lies in the hole that the eye leaves in the skin's."""
    margin = skin.closed[skin.left_eye]
    loops = parts.lid_backs(margin)
    for numbers, sign in ((skin.left_eye, 1), (skin.right_eye, -1)):
        edge = _unroll(skin.azimuth[numbers], skin.station[numbers])
        uvs = edge.mean(0) + np.array([1, 0.8, 0.5, 0.2])[:, None, None] * (edge - edge.mean(0))
        if sign > 0:
            assembly.add_loops("lids", numbers, loops, np.zeros(loops.shape[:2]), uvs)
        else:  # reversed, so that the triangles keep facing outwards
            assembly.add_loops("lids", numbers[::-1], loops[:, ::-1] * [-1, 1, 1], np.zeros(loops.shape[:2]), uvs[:, ::-1])


def _unroll(azimuth: np.ndarray, station: np.ndarray) -> np.ndarray:
    """Texture coordinates of the skin: the parameter sphere unrolled about the crown, its front given more than its share."""
    t = azimuth / np.pi
    u = 0.5 + 0.49 * (t + 0.6 * np.sin(np.pi * t) / np.pi)
    knots = np.concatenate([[0], np.cumsum(np.where((np.arange(N_STATIONS) >= 2) & (np.arange(N_STATIONS) < 13), 1.0, 0.6))])
    v = 0.995 - (0.985 - _STRIP) * np.interp(station, np.arange(N_STATIONS + 1), knots / knots[-1])
    return np.stack([u, v], -1)


def _skin_uvs(skin: Skin) -> np.ndarray:
    """Texture coordinates [F, 3, 2] of the corners; cut along the back of the head."""
    azimuth, station = skin.azimuth[skin.faces], skin.station[skin.faces]
    on_cut = np.abs(np.abs(azimuth) - np.pi) < 1e-9
    other = np.where(on_cut, 0, azimuth).sum(1, keepdims=True)
    azimuth = np.where(on_cut, np.pi * np.sign(other), azimuth)
    crown = station == 0
    rest = np.where(crown, 0, azimuth).sum(1, keepdims=True) / np.maximum((~crown).sum(1, keepdims=True), 1)
    return _unroll(np.where(crown, rest, azimuth), station)


def _ibug68(skin: Skin) -> np.ndarray:
    """The nearest vertices to where the 68 points are by definition."""
    azimuth = np.radians([0, 14, 26, 37, 48, 58, 67, 75, 81])
    height = np.array([-8.45, -8.25, -7.7, -6.8, -5.6, -4.1, -2.4, -0.5, 1.6])
    jaw = np.stack([_at_height(a, y) for a, y in zip(azimuth, height, strict=True)])
    jaw = np.concatenate([(jaw * [-1, 1, 1])[:0:-1], jaw])
    brow = _on_face(np.array([1.15, 2.2, 3.3, 4.3, 5.15]), np.array([4.95, 5.4, 5.6, 5.4, 4.8]))
    ridge = _on_face(np.zeros(4), np.array([3.3, 2.2, 1.0, -0.4]))
    base = _on_face(np.array([-1.35, -0.7, 0, 0.7, 1.35]), np.array([-1.35, -1.5, -1.6, -1.5, -1.35]))
    targets = np.concatenate([jaw, (brow * [-1, 1, 1])[::-1], brow, ridge, base])
    distance = np.linalg.norm(skin.ajar[None] - targets[:, None], axis=-1)
    near = distance.argmin(1)
    q = N_EYE // 4
    along = [2 * q, 2 * q - round(0.7 * q), round(0.7 * q), 0, -round(0.7 * q) % N_EYE, (2 * q + round(0.7 * q)) % N_EYE]
    left = skin.left_eye[along]  # inner corner, upper lid inner, outer, outer corner, lower lid outer, inner
    right = skin.right_eye[[along[i] for i in (3, 2, 1, 0, 5, 4)]]
    return np.concatenate([near, right, left, _mouth68(skin)])


def _lip_vertices(skin: Skin) -> np.ndarray:
    """The loops from the line of the lips to the vermilion border; `mesh.build_skin` numbers them in a row, left half first."""
    left = skin.mouth[0] + np.arange(N_LIP_LOOPS * (N_MOUTH // 2 + 1))
    return np.concatenate([left, _twins(skin)[left]])


def _mouth68(skin: Skin) -> np.ndarray:
    half = N_MOUTH // 2 + 1
    base = skin.mouth[0]
    loops = {k: base + k * half for k in (0, 3)}

    def ring(k: int, turns: list[float]) -> np.ndarray:
        wanted = np.array([round(t * N_MOUTH) % N_MOUTH for t in turns])
        left = np.where((wanted <= N_MOUTH // 4) | (wanted >= 3 * N_MOUTH // 4), wanted, (N_MOUTH // 2 - wanted) % N_MOUTH)
        local = np.where(left <= N_MOUTH // 4, left, left - N_MOUTH // 2 + 1)
        number = loops[k] + local
        mirror = _twins(skin)
        return np.where((wanted <= N_MOUTH // 4) | (wanted >= 3 * N_MOUTH // 4), number, mirror[number])

    outer = [0.5, 0.41, 0.32, 0.25, 0.18, 0.09, 0.0, 0.91, 0.82, 0.75, 0.68, 0.59]
    inner = [0.5, 0.35, 0.25, 0.15, 0.0, 0.85, 0.75, 0.65]
    return np.concatenate([ring(3, outer), ring(0, inner)])


def _twins(skin: Skin) -> np.ndarray:
    """Number of the mirror image of each skin vertex."""
    from scipy.spatial import cKDTree

    return cKDTree(skin.ajar).query(skin.ajar * [-1, 1, 1])[1]


def _at_height(azimuth: float, y: float) -> np.ndarray:
    station = np.linspace(3, 13, 2000)
    points = face.features(*loft(np.full(2000, azimuth), station).T)
    return points[np.abs(points[:, 1] - y).argmin()]


def _on_face(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return face.features(*loft(*find(x, y)).T)
