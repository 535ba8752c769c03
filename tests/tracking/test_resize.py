"""Sizes of pictures and masks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="resizing needs OpenCV: pip install 'gafcore[track]'")

from gafcore.tracking.resize import resized


def test_halves_and_quarters_are_means():
    x = np.random.default_rng(0).random((16, 24)).astype(np.float32)
    half = x.reshape(8, 2, 12, 2).mean((1, 3))
    np.testing.assert_allclose(resized(x, (12, 8)), half, rtol=1e-6)
    np.testing.assert_allclose(resized(x, (6, 4)), half.reshape(4, 2, 6, 2).mean((1, 3)), rtol=1e-6)


def test_bytes_are_rounded():
    x = np.array([[[1, 0, 9], [2, 0, 9]], [[2, 1, 9], [2, 1, 9]]], np.uint8)
    assert resized(x, (1, 1)).tolist() == [[[2, 1, 9]]]  # means 1.75, 0.5, 9


def test_other_factors_leave_nothing_out():
    """At 5/8 linear interpolation would miss one of three columns; every column weighs as much as it is wide."""
    for column in range(8):
        x = np.zeros((8, 8), np.float32)
        x[:, column] = 1
        assert resized(x, (5, 5)).mean() == pytest.approx(1 / 8, rel=1e-5)


def test_growing_is_linear_between_pixel_centres():
    x = np.array([[0.0, 1.0]], np.float32)
    np.testing.assert_allclose(resized(x, (4, 1)), [[0, 0.25, 0.75, 1]])
    np.testing.assert_allclose(resized(x[..., None], (4, 1))[..., 0], [[0, 0.25, 0.75, 1]])


def test_the_same_size_is_the_same_picture():
    x = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    assert (resized(x, (7, 5)) == x).all()
