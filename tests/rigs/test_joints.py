from __future__ import annotations

import numpy as np

from gafcore.rigs.joints import affine_regressor, smoothstep


def test_regressor_gives_the_target_and_follows_its_surroundings():
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(40, 3))
    chosen = np.arange(40) < 25
    target = np.array([0.2, -0.1, 0.3])
    weights = affine_regressor(vertices, chosen, target)
    np.testing.assert_allclose(weights @ vertices, target, atol=1e-12)
    assert np.isclose(weights.sum(), 1)
    assert (weights[~chosen] == 0).all()
    assert np.abs(weights).max() < 0.1  # near a plain mean, not an extrapolation
    np.testing.assert_allclose(weights @ (vertices * 1.1 + 0.5), target * 1.1 + 0.5, atol=1e-12)


def test_regressor_of_the_mean_is_the_mean():
    vertices = np.random.default_rng(1).normal(size=(10, 3))
    weights = affine_regressor(vertices, np.ones(10, bool), vertices.mean(0))
    np.testing.assert_allclose(weights, 0.1, atol=1e-12)


def test_smoothstep():
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0, 1, 2, 3]), 0, 2), [0, 0, 0.5, 1, 1])
