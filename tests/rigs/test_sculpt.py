"""The scripts behind the procedural head: the shipped file is what they make, and their pieces do what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def sculpt():
    """The package `scripts/sculpt`."""
    sys.path.insert(0, str(SCRIPTS))
    import sculpt.face
    import sculpt.flips
    import sculpt.head
    import sculpt.loft
    import sculpt.mesh

    yield sculpt
    sys.path.remove(str(SCRIPTS))


def test_the_shipped_head_is_the_scripts_head(sculpt, procedural):
    head = sculpt.head.build_head()
    np.testing.assert_allclose(procedural.template.numpy(), head.vertices * 0.01, atol=1e-7)
    np.testing.assert_array_equal(procedural.faces.numpy(), head.faces)


def test_loft_is_smooth_over_the_crown(sculpt):
    azimuth = np.linspace(-np.pi, np.pi, 37)
    at_pole = sculpt.loft.loft(azimuth, np.zeros(37))
    np.testing.assert_allclose(at_pole, np.broadcast_to(at_pole[0], at_pole.shape), atol=1e-9)


def test_find_inverts_the_loft(sculpt):
    x, y = np.array([0.0, 1.5, -3.0, 4.5]), np.array([2.0, -3.5, 3.3, 0.0])
    points = sculpt.loft.loft(*sculpt.loft.find(x, y))
    np.testing.assert_allclose(points[:, :2], np.stack([x, y], -1), atol=1e-6)
    assert (points[:, 2] > 0).all()


def test_find_says_when_there_is_no_such_point(sculpt):
    with pytest.raises(ValueError, match="no point of the front"):
        sculpt.loft.find(np.array([30.0]), np.array([0.0]))


def test_mouth_closes_to_its_line(sculpt):
    face = sculpt.face
    x = np.linspace(-2, 2, 9)
    _, line, _ = face.lip_curves(x)
    gap = face.AJAR * face.opening(x)
    upper, lower = face.close_mouth(x, line + gap), face.close_mouth(x, line - gap)
    assert (upper >= lower).all()
    assert np.abs(upper - lower).max() < 0.03
    far = face.close_mouth(x, line + 4)
    np.testing.assert_allclose(far, line + 4, atol=1e-3)


def test_flip_takes_the_shorter_diagonal_and_keeps_the_square(sculpt):
    points = np.array([[0.0, 0, 0], [3, -0.1, 0], [6, 0, 0], [3, 0.1, 0]])  # a thin kite cut along its long axis
    sphere = points * [0.05, 0.05, 0] + [0, 0, 1]
    faces = sculpt.flips.flip_edges(np.array([[0, 1, 2], [0, 2, 3]]), points, sphere)
    assert sorted(map(sorted, faces.tolist())) == [[0, 1, 3], [1, 2, 3]]
    normals = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    assert (normals[:, 2] > 0).all()


def test_flip_leaves_even_triangles_alone(sculpt):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    np.testing.assert_array_equal(sculpt.flips.flip_edges(faces, points, points * 0.1 + [0, 0, 1]), faces)
