from __future__ import annotations

import numpy as np
import pytest
import torch

from gafcore.errors import InputError
from gafcore.rigs.landmarks import embed_triangles, embed_vertices

FACES = np.array([[0, 1, 2], [2, 1, 3]])
POINTS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 5]])


def at(embedding):
    return (POINTS[torch.from_numpy(FACES)[embedding.faces]] * embedding.barycentrics[..., None]).sum(1)


def test_vertices():
    torch.testing.assert_close(at(embed_vertices(FACES, [3, 0, 2])), POINTS[[3, 0, 2]])


def test_vertex_on_no_face():
    with pytest.raises(InputError, match="vertex 9 is on no face"):
        embed_vertices(FACES, [0, 9])


def test_triangles_in_any_order_of_corners():
    embedding = embed_triangles(FACES, np.array([[3, 2, 1]]), np.array([[0.5, 0.2, 0.3]]), [17])
    torch.testing.assert_close(at(embedding)[0], 0.5 * POINTS[3] + 0.2 * POINTS[2] + 0.3 * POINTS[1])
    assert embedding.indices.tolist() == [17]


def test_triangle_that_is_no_face():
    with pytest.raises(InputError, match=r"\[0, 1, 3\] is not a face"):
        embed_triangles(FACES, np.array([[0, 1, 3]]), np.ones((1, 3)) / 3)
