"""Projected points and their Jacobians, against the rig itself and against autograd in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.tracking.jacobian import linearise
from gafcore.tracking.points import place, point_model, project, right_jacobian
from tests.tracking.toy import parameters, picture, toy_motion, toy_rig

CENTRE = (250.0, 231.0)


@pytest.fixture(scope="module")
def case():
    rig = toy_rig()
    params = toy_motion(rig, 4)
    params = replace(params, jaw_pose=0.2 * torch.randn(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    return rig, params, point_model(rig, "mediapipe")


def test_points_are_the_rigs(case):
    rig, params, model = case
    got = place(model, parameters(model, params), params.shape)
    want = rig.posed_landmarks(params, "mediapipe")
    assert (got - want).norm(dim=-1).median() < 1e-4
    assert (got - want).norm(dim=-1).max() < 2e-3  # across faces of centimetres where the toy's weights fall off steeply


def test_points_without_joints_are_exactly_the_rigs(case):
    rig, params, _ = case
    still = replace(rig, skin_weights=torch.eye(5, dtype=torch.float64)[1].expand(rig.n_vertices, 5))
    model = point_model(still, "mediapipe")
    torch.testing.assert_close(place(model, parameters(model, params), params.shape), still.posed_landmarks(params, "mediapipe"))


def test_project_is_a_pinhole_camera(case):
    _, params, model = case
    points = place(model, parameters(model, params), params.shape)
    torch.testing.assert_close(project(points, torch.tensor(800.0).double(), (256.0, 240.0)), picture(points, 800.0, 512, 480))


def test_jacobian_matches_autograd(case):
    _, params, model = case
    theta, log_focal = parameters(model, params), torch.tensor(800.0).double().log()

    def pixels(theta, shape, log_focal):
        return project(place(model, theta, shape), log_focal.exp(), CENTRE)

    by_theta, by_shape, by_focal = torch.autograd.functional.jacobian(pixels, (theta, params.shape, log_focal), vectorize=True)
    got = linearise(model, theta, params.shape, log_focal.exp(), CENTRE, shared=True)
    torch.testing.assert_close(got.pixels, pixels(theta, params.shape, log_focal))
    torch.testing.assert_close(got.frame, torch.stack([by_theta[t, :, :, t] for t in range(4)]), rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(got.shared, torch.cat([by_shape, by_focal[..., None]], -1), rtol=1e-10, atol=1e-9)


def test_jacobian_at_the_neutral_pose(case):
    """Zero rotations are where formulas divide by the angle."""
    _, params, model = case
    theta = torch.zeros_like(parameters(model, params))[:1]
    theta[:, model.layout.translation] = torch.tensor([0.0, 0.0, -0.5]).double()
    want = torch.autograd.functional.jacobian(lambda x: project(place(model, x, params.shape), torch.tensor(800.0).double(), CENTRE), theta)
    got = linearise(model, theta, params.shape, torch.tensor(800.0).double(), CENTRE, shared=False)
    assert got.shared is None
    torch.testing.assert_close(got.frame, want[:, :, :, 0], rtol=1e-9, atol=1e-9)


def test_fixing_the_identity_changes_nothing_else(case):
    _, params, model = case
    theta = parameters(model, params)
    fixed = model.at_shape(params.shape)
    torch.testing.assert_close(place(fixed, theta, theta.new_zeros(0)), place(model, theta, params.shape))


def test_some_points_are_where_all_of_them_are(case):
    _, params, model = case
    theta, which = parameters(model, params), torch.arange(model.n_points) % 3 != 1
    some = model.of_points(which)
    assert some.n_points == int(which.sum()) < model.n_points
    torch.testing.assert_close(place(some, theta, params.shape), place(model, theta, params.shape)[:, which])


def test_right_jacobian_is_continuous_at_small_angles():
    axis = torch.tensor([[0.6, -0.64, 0.48]]).double()
    torch.testing.assert_close(right_jacobian(axis * 0.0100001), right_jacobian(axis * 0.0099999), rtol=0, atol=1e-6)


def test_missing_landmarks_are_named():
    rig = replace(toy_rig(), landmarks={})
    with pytest.raises(ValueError, match="'toy' has no landmarks 'mediapipe'"):
        point_model(rig, "mediapipe")
