"""Joints and skin weights for meshes that come without them."""

from __future__ import annotations

import numpy as np


def affine_regressor(vertices: np.ndarray, chosen: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights [V] on the chosen vertices that give `target` and sum to one: of all such weights those nearest to a plain mean.

    The joint then follows its surroundings when identity coefficients move them.
    """
    points = vertices[chosen].astype(np.float64)
    rows = np.concatenate([points.T, np.ones((1, len(points)))])
    even = np.full(len(points), 1 / len(points))
    correction = np.linalg.lstsq(rows, np.append(target, 1.0) - rows @ even, rcond=None)[0]
    weights = np.zeros(len(vertices))
    weights[chosen] = even + correction
    return weights


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, and a cubic with level ends between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
