"""Edge flips: from the triangulation of the parameter sphere to the one that is even on the sculpted surface."""

from __future__ import annotations

import numpy as np

_SLACK = 0.4  # radians; below it a flip gains little and may cut across a ridge


def flip_edges(faces: np.ndarray, points: np.ndarray, sphere: np.ndarray, rounds: int = 30) -> np.ndarray:
    """Flip edges whose opposite angles on the surface sum to more than pi (Delaunay's criterion), where the flip keeps the parameter sphere
    free of folds.

    Args:
        faces: [F, 3].
        points: [N, 3] positions on the surface.
        sphere: [N, 3] positions on the parameter sphere.
    """
    faces = faces.copy()
    for _ in range(rounds):
        touched: set[int] = set()
        present = _edges(faces)
        flipped = 0
        for (a, b), sides in list(present.items()):
            other = present.get((b, a))
            if a > b or other is None or sides in touched or other in touched:
                continue
            c, d = _opposite(faces[sides], a, b), _opposite(faces[other], a, b)
            if (c, d) in present or (d, c) in present or _angle(points, c, a, b) + _angle(points, d, a, b) < np.pi + _SLACK:
                continue
            if min(_volume(sphere, a, d, c), _volume(sphere, d, b, c)) <= 0:
                continue
            faces[sides], faces[other] = (a, d, c), (d, b, c)
            touched |= {sides, other}
            flipped += 1
        if not flipped:
            break
    return faces


def _edges(faces: np.ndarray) -> dict[tuple[int, int], int]:
    return {(int(f[k]), int(f[(k + 1) % 3])): i for i, f in enumerate(faces) for k in range(3)}


def _opposite(face: np.ndarray, a: int, b: int) -> int:
    return int(next(v for v in face if v not in (a, b)))


def _angle(points: np.ndarray, at: int, a: int, b: int) -> float:
    u, v = points[a] - points[at], points[b] - points[at]
    return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))


def _volume(sphere: np.ndarray, a: int, b: int, c: int) -> float:
    """Positive where the triangle is seen counter-clockwise from outside the sphere."""
    return float(np.cross(sphere[b] - sphere[a], sphere[c] - sphere[a]) @ (sphere[a] + sphere[b] + sphere[c]))
