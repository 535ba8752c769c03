"""Landmark sets on a rig: points given as triangle and barycentric coordinates, stored by the vertices of the triangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gafcore.errors import InputError
from gafcore.types import LandmarkEmbedding


def embed_vertices(
    faces: np.ndarray, vertices: Sequence[int] | np.ndarray, indices: Sequence[int] | np.ndarray | None = None
) -> LandmarkEmbedding:
    """Landmarks that sit on vertices: any triangle that has the vertex, with all the weight on it."""
    wanted = np.asarray(vertices, np.int64)
    flat = faces.reshape(-1)
    order = np.argsort(flat, kind="stable")
    where = np.searchsorted(flat[order], wanted)
    found = where < len(flat)
    found &= flat[order[np.minimum(where, len(flat) - 1)]] == wanted
    if not found.all():
        raise InputError(f"landmark vertex {int(wanted[~found][0])} is on no face of this mesh")
    corner = order[where]
    barycentrics = np.zeros((len(wanted), 3), np.float32)
    barycentrics[np.arange(len(wanted)), corner % 3] = 1
    return _embedding(corner // 3, barycentrics, indices)


def embed_triangles(
    faces: np.ndarray, triangles: np.ndarray, barycentrics: np.ndarray, indices: Sequence[int] | np.ndarray | None = None
) -> LandmarkEmbedding:
    """Landmarks given by the three vertices [L, 3] of a triangle of this mesh and barycentrics in that order."""
    keys = {tuple(sorted(face)): i for i, face in enumerate(faces.tolist())}
    numbers, weights = [], []
    for triangle, weight in zip(triangles.tolist(), barycentrics.tolist(), strict=True):
        number = keys.get(tuple(sorted(triangle)))
        if number is None:
            raise InputError(f"landmark triangle {triangle} is not a face of this mesh")
        by_vertex = dict(zip(triangle, weight, strict=True))
        numbers.append(number)
        weights.append([by_vertex[v] for v in faces[number].tolist()])
    return _embedding(np.array(numbers, np.int64), np.array(weights, np.float32), indices)


def _embedding(faces: np.ndarray, barycentrics: np.ndarray, indices: Sequence[int] | np.ndarray | None) -> LandmarkEmbedding:
    numbers = np.arange(len(faces)) if indices is None else np.asarray(indices, np.int64)
    return LandmarkEmbedding(torch.from_numpy(faces.astype(np.int64)), torch.from_numpy(barycentrics), torch.from_numpy(numbers))
