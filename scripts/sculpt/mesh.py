"""A triangle mesh of the sculpted skin: loops around eyes and mouth, points elsewhere as dense as the form needs, exactly symmetric.

Points live on a sphere (azimuth, station), where nothing overlaps: the triangulation is the sphere's Delaunay triangulation, and the same
sphere unrolled is the texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from gafcore.rigs.regions import inside_polygon
from sculpt import face
from sculpt.flips import flip_edges
from sculpt.loft import N_STATIONS, find, loft

_POLAR = 0.86 * np.pi / N_STATIONS  # radians of the parameter sphere per station; the rest of the sphere is the hole at the neck
N_EYE, N_MOUTH = 32, 48  # points of a loop around an eye (whole) and around the mouth (whole)
_EYE_LOOPS = (0.0, 0.12, 0.28, 0.48, 0.74)  # cm outwards from the lid margin
_LIP_LOOPS = (0.0, 0.3, 0.65, 1.0)  # from the line where the lips meet to the vermilion border
N_LIP_LOOPS = len(_LIP_LOOPS)
_SKIN_LOOPS = (0.18, 0.40, 0.68)  # cm outwards from the vermilion border


@dataclass(frozen=True)
class Skin:
    """`ajar` are the points with the mouth open as sculpted, `closed` with it shut; loops are vertex numbers in order round the hole."""

    ajar: np.ndarray  # [N, 3] cm
    closed: np.ndarray  # [N, 3] cm
    azimuth: np.ndarray  # [N]
    station: np.ndarray  # [N]
    faces: np.ndarray  # [F, 3]
    left_eye: np.ndarray  # [N_EYE] margin loop, from the outer corner over the upper lid
    right_eye: np.ndarray
    mouth: np.ndarray  # [N_MOUTH] loop where the lips meet, from the left corner over the upper lip


def _outward(loop: np.ndarray, distance: float) -> np.ndarray:
    """A closed loop [n, 2] (counter-clockwise) moved outwards."""
    tangent = np.roll(loop, -1, 0) - np.roll(loop, 1, 0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], -1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    return loop + distance * normal


def eye_loops() -> list[np.ndarray]:
    """Loops [N_EYE, 2] around the left eye in (x, y), counter-clockwise from the outer corner."""
    angle = np.arange(N_EYE) * 2 * np.pi / N_EYE
    x = face.EYE[0] + 1.45 * np.cos(angle)
    upper, lower = face.lid_curves(x)
    margin = np.stack([x, np.where(np.sin(angle) >= 0, upper, lower)], -1)
    margin[0, 1] = margin[N_EYE // 2, 1] = np.nan
    margin[0, 1], margin[N_EYE // 2, 1] = (upper + lower)[[0, N_EYE // 2]] / 2
    loops = [margin]
    for near, far in pairwise(_EYE_LOOPS):
        loops.append(_outward(loops[-1], far - near))
    return loops


def mouth_loops() -> list[np.ndarray]:
    """Loops [N_MOUTH, 2] around the mouth ajar in (x, y), counter-clockwise from the left corner."""
    angle = np.arange(N_MOUTH) * 2 * np.pi / N_MOUTH
    c, s = np.cos(angle), np.sin(angle)
    loops = []
    for k, share in enumerate(_LIP_LOOPS):
        x = (face.MOUTH_HALF + 0.07 * k) * c
        upper, line, lower = face.lip_curves(x)
        gap = face.AJAR * np.abs(s) + 0.03 * k * np.abs(s)
        reach = np.where(s >= 0, upper - line, lower - line) * share
        loops.append(np.stack([x, line + np.sign(s) * gap * (np.abs(s) > 1e-9) + reach], -1))
    border = loops[-1]
    return [*loops, *(_outward(border, d) for d in _SKIN_LOOPS)]


def _spacing(p: np.ndarray) -> np.ndarray:
    """Wanted distance between points, cm."""
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    front = face.smoothstep(z, -1.0, 4.0) * face.smoothstep(y, -12.5, -9.5) * face.smoothstep(-y, -10.0, -6.5)
    size = 1.05 - 0.62 * front
    nose = np.exp(-((x / 1.9) ** 4) - (((y + 0.5) / 1.7) ** 4)) * (z > 4)
    eye = np.exp(-((np.hypot(x - face.EYE[0], (y - face.EYE[1]) * 1.2) / 2.4) ** 4)) * (z > 2)
    mouth = np.exp(-((x / 3.2) ** 4) - (((y - face.MOUTH_Y) / 1.8) ** 4)) * (z > 4)
    return size * (1 - 0.62 * nose) * (1 - 0.38 * eye) * (1 - 0.3 * mouth)


def _surface(azimuth: np.ndarray, station: np.ndarray) -> np.ndarray:
    return face.features(*loft(azimuth, station).T)


def _sphere(azimuth: np.ndarray, station: np.ndarray) -> np.ndarray:
    polar = station * _POLAR
    return np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)


def _scatter(fixed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Azimuth and station [N, 2] of points on the left half (azimuth 0..pi), at the wanted spacing from each other and from `fixed`."""
    n = 120_000
    azimuth, station = rng.uniform(0, np.pi, n), rng.uniform(0, N_STATIONS, n)
    points = _surface(azimuth, station)
    size = _spacing(points)
    reach = np.abs(points[:, 0]) > 0.55 * size  # the midline has points of its own
    x, y = loft(azimuth, station)[:, :2].T
    for outline in (eye_loops()[-1], mouth_loops()[-1]):
        reach &= ~(inside_polygon(x, y, outline) & (points[:, 2] > 3))
    azimuth, station, points, size = azimuth[reach], station[reach], points[reach], size[reach]
    alive = cKDTree(fixed).query(points)[0] > 0.72 * size
    tree = cKDTree(points)
    chosen = []
    for i in range(len(points)):
        if alive[i]:
            chosen.append(i)
            alive[tree.query_ball_point(points[i], 0.80 * size[i])] = False
    return np.stack([azimuth[chosen], station[chosen]], -1)


def _line(azimuth: float, start: float, stop: float) -> np.ndarray:
    """Stations along a line of constant azimuth, at the wanted spacing."""
    station = np.linspace(start, stop, 4000)
    points = _surface(np.full(4000, azimuth), station)
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    passed = np.concatenate([[0], np.cumsum(step / (0.85 * _spacing(points[:-1])))])
    count = max(2, round(passed[-1]) + 1)
    return np.interp(np.linspace(0, passed[-1], count), passed, station)


def build_skin(seed: int = 7) -> Skin:
    """The mesh of the skin; neck edge and holes are open."""
    eye, mouth = np.concatenate(eye_loops()), np.concatenate(mouth_loops())
    mouth = mouth[mouth[:, 0] > -1e-9]
    azimuth_e, station_e = find(eye[:, 0], eye[:, 1])
    azimuth_m, station_m = find(mouth[:, 0], mouth[:, 1])
    azimuth_m[mouth[:, 0] < 1e-9] = 0
    middle = np.sort(station_m[azimuth_m == 0])
    top, bottom = middle[0], middle[-1]
    front = np.concatenate([_line(0, 0, top)[:-1], _line(0, bottom, N_STATIONS)[1:]])
    back = _line(np.pi, 0, N_STATIONS)[1:]
    rim = np.linspace(0, np.pi, 36)[1:-1]
    half = np.concatenate([
        np.stack([azimuth_e, station_e], -1),
        np.stack([azimuth_m, station_m], -1),
        np.stack([np.zeros(len(front)), front], -1),
        np.stack([np.full(len(back), np.pi), back], -1),
        np.stack([rim, np.full(len(rim), float(N_STATIONS))], -1),
    ])  # fmt: skip
    n_fixed = len(half)
    half = np.concatenate([half, _scatter(_surface(*half.T), np.random.default_rng(seed))])
    holes = {"eye": np.arange(N_EYE), "mouth": N_EYE * len(_EYE_LOOPS) + np.arange(N_MOUTH // 2 + 1)}
    half = _relax(half, n_fixed, holes)
    faces = flip_edges(_triangulate(half, holes), _surface(*half.T), _sphere(*half.T))
    return _mirror(half, faces, holes)


def _triangulate(half: np.ndarray, holes: dict[str, np.ndarray]) -> np.ndarray:
    """Triangles of the left half, without those that span a hole."""
    on_midline = (half[:, 0] == 0) | (half[:, 0] == np.pi) | (half[:, 1] == 0)
    twin = half[~on_midline] * [-1, 1]
    sphere = _sphere(*np.concatenate([half, twin]).T)
    hull = ConvexHull(sphere)
    faces = hull.simplices
    outward = np.einsum(
        "fk,fk->f", np.cross(sphere[faces[:, 1]] - sphere[faces[:, 0]], sphere[faces[:, 2]] - sphere[faces[:, 0]]), sphere[faces].sum(1)
    )
    faces = np.where((outward < 0)[:, None], faces[:, [0, 2, 1]], faces)
    faces = faces[(faces < len(half)).all(1)]
    spans = np.zeros(len(faces), bool)
    for loop in holes.values():
        spans |= np.isin(faces, loop).all(1)
    rim = half[:, 1] == N_STATIONS
    spans |= rim[faces].all(1)
    return faces[~spans]


def _relax(half: np.ndarray, n_fixed: int, holes: dict[str, np.ndarray], rounds: int = 12) -> np.ndarray:
    """Move the free points towards the middle of their neighbours on the surface, so that triangles become even."""
    half = half.copy()
    free = np.arange(n_fixed, len(half))
    eps = 1e-4
    for round_ in range(rounds):
        if round_ % 4 == 0:
            faces = _triangulate(half, holes)
            edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
            edges = np.concatenate([edges, edges[:, ::-1]])
        p = _surface(*half.T)
        weight = 1 / _spacing(p)[edges[:, 1]]
        total, mean = np.zeros(len(half)), np.zeros((len(half), 3))
        np.add.at(total, edges[:, 0], weight)
        np.add.at(mean, edges[:, 0], weight[:, None] * p[edges[:, 1]])
        step = 0.5 * (mean[free] / total[free, None] - p[free])
        a, s = half[free].T
        du = (_surface(a + eps, s) - p[free]) / eps
        ds = (_surface(a, s + eps) - p[free]) / eps
        g11, g12, g22 = (du * du).sum(1), (du * ds).sum(1), (ds * ds).sum(1)
        b1, b2 = (du * step).sum(1), (ds * step).sum(1)
        det = g11 * g22 - g12 * g12 + 1e-9
        half[free, 0] = np.clip(a + np.clip((b1 * g22 - b2 * g12) / det, -0.03, 0.03), 0.01, np.pi - 0.01)
        half[free, 1] = np.clip(s + np.clip((b2 * g11 - b1 * g12) / det, -0.1, 0.1), 0.15, N_STATIONS - 0.12)
    return half


def _soften(points: np.ndarray, faces: np.ndarray, rounds: int = 2) -> np.ndarray:
    """The underside of the nose, where heights over (x, y) are at their limit, smoothed by its neighbours."""
    x, y, z = points.T
    share = 0.6 * np.exp(-((x / 1.9) ** 6) - (((y + 1.7) / 0.6) ** 4)) * (z > 5)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = np.bincount(edges[:, 0], minlength=len(points))[:, None]
    for _ in range(rounds):
        total = np.stack([np.bincount(edges[:, 0], points[edges[:, 1], k], len(points)) for k in range(3)], -1)
        points = points + share[:, None] * (total / np.maximum(count, 1) - points)
    return points


def _mirror(half: np.ndarray, faces: np.ndarray, holes: dict[str, np.ndarray]) -> Skin:
    on_midline = (half[:, 0] == 0) | (half[:, 0] == np.pi) | (half[:, 1] == 0)
    twin_of = np.where(on_midline, np.arange(len(half)), 0)
    twin_of[~on_midline] = len(half) + np.arange((~on_midline).sum())
    azimuth, station = np.concatenate([half, half[~on_midline] * [-1, 1]]).T
    ajar = _surface(azimuth, station)
    ajar[:, 0][np.concatenate([on_midline, np.zeros((~on_midline).sum(), bool)])] = 0
    ajar = _soften(ajar, np.concatenate([faces, twin_of[faces][:, [0, 2, 1]]]))
    closed = ajar.copy()
    near = (ajar[:, 2] > 3) & (np.abs(ajar[:, 0]) < face.MOUTH_HALF)
    closed[near, 1] = face.close_mouth(ajar[near, 0], ajar[near, 1])
    quarter = N_MOUTH // 4
    loop = holes["mouth"]  # corner, up to the middle of the upper lip, then from the middle of the lower lip to the corner
    upper, lower = loop[: quarter + 1], loop[quarter + 1 :]
    mouth = np.concatenate([upper, twin_of[upper[-2::-1]], twin_of[lower[:0:-1]], lower])
    return Skin(
        ajar, closed, azimuth, station, np.concatenate([faces, twin_of[faces][:, [0, 2, 1]]]), holes["eye"], twin_of[holes["eye"]], mouth
    )
