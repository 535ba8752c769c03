"""Skull, jaw and neck: one closed cubic B-spline surface over azimuth and station (crown to shoulder)."""

from __future__ import annotations

import numpy as np

# Rows from the crown down. Each: z of the axis, then for azimuths 0 (face), 30, 60, 90 (ear), 120, 150, 180 (nape) the distance from the
# axis, then the heights. Sizes follow the usual head measures of adults (Farkas): length 19, breadth 15.4, face breadth 13.5, height 22 cm.
_ROWS = (
    (-1.2, (0.0,) * 7, (13.8,) * 7),
    (-1.2, (3.4,) * 7, (13.3,) * 7),
    (-1.2, (6.4, 6.3, 5.8, 5.7, 6.1, 6.7, 6.9), (11.7,) * 7),
    (-1.2, (8.8, 8.6, 7.7, 7.4, 8.0, 8.6, 8.9), (9.4, 9.4, 9.3, 9.3, 9.2, 9.0, 8.9)),
    (-1.2, (9.75, 9.55, 8.4, 8.1, 8.7, 9.3, 9.6), (7.0, 7.0, 6.8, 6.6, 6.3, 6.0, 5.8)),
    (-1.2, (9.8, 9.6, 8.45, 8.15, 8.8, 9.4, 9.6), (4.9, 4.9, 4.8, 4.5, 4.0, 3.3, 3.0)),
    (-1.2, (9.3, 9.2, 8.35, 7.85, 8.5, 9.0, 9.2), (3.2, 3.2, 3.0, 2.6, 1.8, 0.9, 0.5)),
    (-1.2, (9.3, 9.1, 8.3, 7.5, 7.8, 8.3, 8.4), (0.8, 0.8, 0.7, 0.4, -0.2, -1.2, -1.6)),
    (-1.2, (9.5, 8.8, 7.75, 7.05, 7.1, 7.2, 7.2), (-1.6, -1.6, -1.6, -1.7, -2.0, -2.9, -3.4)),
    (-1.2, (9.7, 8.5, 7.15, 6.6, 6.4, 6.2, 6.0), (-3.4, -3.4, -3.5, -3.5, -3.8, -4.6, -5.0)),
    (-1.2, (9.3, 8.15, 6.85, 6.35, 6.0, 5.7, 5.4), (-5.3, -5.2, -5.1, -5.0, -5.4, -6.2, -6.6)),
    (-1.2, (9.5, 7.75, 5.8, 5.4, 5.4, 5.4, 5.1), (-7.3, -6.9, -6.3, -6.4, -7.0, -7.8, -8.2)),
    (-1.2, (8.1, 6.3, 4.9, 5.0, 5.3, 5.3, 5.0), (-9.0, -8.2, -7.7, -8.0, -8.7, -9.4, -9.8)),
    (-1.2, (5.6, 4.9, 4.4, 4.8, 5.3, 5.3, 5.0), (-9.9, -9.3, -9.3, -9.8, -10.4, -11.0, -11.4)),
    (-1.6, (4.6, 4.6, 4.7, 5.1, 5.6, 5.7, 5.5), (-11.8, -11.7, -11.4, -11.5, -11.8, -12.2, -12.6)),
    (-2.0, (5.0, 5.6, 6.6, 7.3, 7.3, 6.7, 6.3), (-13.9, -13.8, -13.5, -13.1, -13.2, -13.6, -13.9)),
    (-2.4, (6.6, 8.2, 10.6, 12.0, 10.5, 8.2, 7.2), (-15.9, -15.7, -15.3, -14.9, -14.9, -15.1, -15.4)),
    (-2.4, (7.3, 9.0, 11.8, 13.2, 11.4, 8.8, 7.7), (-17.5, -17.3, -16.9, -16.6, -16.6, -16.8, -17.0)),
)  # fmt: skip
N_STATIONS = len(_ROWS) - 1
_COLUMNS = 12


def _net() -> np.ndarray:
    """Control points [rows + 2, columns + 3, 3]: mirrored to a full turn, a ghost row above the crown and below the shoulder."""
    azimuth = np.arange(_COLUMNS) * (2 * np.pi / _COLUMNS)
    column = np.minimum(np.arange(_COLUMNS), _COLUMNS - np.arange(_COLUMNS))
    rows = []
    for axis, reach, height in _ROWS:
        r, y = np.array(reach)[column], np.array(height)[column]
        rows.append(np.stack([r * np.sin(azimuth), y, axis + r * np.cos(azimuth)], -1))
    above = np.roll(rows[1], _COLUMNS // 2, 0)  # over the crown and down the other side
    net = np.stack([above, *rows, 2 * rows[-1] - rows[-2]])
    return np.concatenate([net[:, -1:], net, net[:, :2]], 1)


_NET = _net()


def _weights(t: np.ndarray) -> np.ndarray:
    """Uniform cubic B-spline weights [..., 4] at t in 0..1 of a span."""
    return np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1) / 6


def loft(azimuth: np.ndarray, station: np.ndarray) -> np.ndarray:
    """Points [N, 3] at azimuth (radians, 0 = face, positive towards +x) and station (0 crown .. N_STATIONS shoulder)."""
    u = np.mod(azimuth, 2 * np.pi) * (_COLUMNS / (2 * np.pi))
    i = np.minimum(u.astype(int), _COLUMNS - 1)
    j = np.clip(station.astype(int), 0, N_STATIONS - 1)
    wu, ws = _weights(u - i), _weights(station - j)
    patch = _NET[j[:, None, None] + np.arange(4)[None, :, None], i[:, None, None] + np.arange(4)[None, None]]
    return np.einsum("nijk,ni,nj->nk", patch, ws, wu)


def find(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth and station of the points of the front of the head at (x, y): Newton's method from the frontal profile."""
    stations = np.linspace(2, 12, 200)
    profile = loft(np.zeros(200), stations)
    station = np.interp(-y, -profile[:, 1], stations)
    azimuth = np.arcsin(np.clip(x / 10, -0.95, 0.95))
    eps = 1e-5
    for _ in range(30):
        p = loft(azimuth, station)
        du = (loft(azimuth + eps, station) - p)[:, :2] / eps
        ds = (loft(azimuth, station + eps) - p)[:, :2] / eps
        rx, ry = x - p[:, 0], y - p[:, 1]
        det = du[:, 0] * ds[:, 1] - du[:, 1] * ds[:, 0]
        azimuth = azimuth + np.clip((rx * ds[:, 1] - ry * ds[:, 0]) / det, -0.2, 0.2)
        station = np.clip(station + np.clip((ry * du[:, 0] - rx * du[:, 1]) / det, -0.7, 0.7), 1, 13)
    error = np.abs(np.stack([rx, ry])).max()
    if error > 1e-6:
        raise ValueError(f"no point of the front of the head at some (x, y): off by {error:.2g} cm")
    return azimuth, station
