from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.types import RigParams
from tests.cases.rigs import random_params, tiny_rig
from tests.reference import rigs as reference


@pytest.mark.parametrize("pose_basis", [True, False], ids=["correctives", "plain"])
@pytest.mark.parametrize("offset", [True, False], ids=["offset", "no-offset"])
def test_vertices_match_the_reference(pose_basis, offset):
    rig = tiny_rig(pose_basis=pose_basis)
    params = random_params(rig, offset=offset)
    got = rig.vertices(params)
    for t in range(len(params)):
        torch.testing.assert_close(got[t].double(), reference.posed(rig, params, t), rtol=1e-5, atol=1e-6)


def test_procedural_matches_the_reference(procedural):
    params = random_params(procedural, 1)
    torch.testing.assert_close(procedural.vertices(params)[0].double(), reference.posed(procedural, params, 0), rtol=1e-4, atol=2e-6)


def test_gradient_in_every_parameter():
    rig = tiny_rig(5).to(dtype=torch.float64)
    params = random_params(rig, 2, offset=True).map(lambda _, x: x.double().requires_grad_())
    names, tensors = zip(*params.items(), strict=True)
    assert torch.autograd.gradcheck(lambda *x: rig.vertices(RigParams(**dict(zip(names, x, strict=True)))), tensors)


def test_gradient_at_rest_is_finite(procedural):
    params = procedural.neutral().map(lambda _, x: x.requires_grad_())
    procedural.vertices(params).square().sum().backward()
    assert all(torch.isfinite(x.grad).all() for _, x in params.items() if x is not None)


def test_neutral_is_the_template(procedural):
    vertices = procedural.vertices(procedural.neutral(2))
    torch.testing.assert_close(vertices, procedural.template.expand(2, -1, -1), rtol=0, atol=1e-6)


def test_subset_equals_rows_of_the_whole():
    rig, subset = tiny_rig(), torch.tensor([3, 0, 3, 10])
    params = random_params(rig, offset=True)
    torch.testing.assert_close(rig.vertices(params, subset), rig.vertices(params)[:, subset])


def test_posed_landmarks_equal_landmarks_of_the_whole(procedural):
    params = random_params(procedural, 2)
    for name in procedural.landmarks:
        whole = procedural.landmark_points(procedural.vertices(params), name)
        torch.testing.assert_close(procedural.posed_landmarks(params, name), whole, rtol=1e-4, atol=1e-6)


def test_landmark_points_are_barycentric():
    rig = tiny_rig()
    vertices, embedding = torch.randn(1, 11, 3), rig.landmarks["ibug68"]
    got = rig.landmark_points(vertices, "ibug68")[0, 4]
    corners = vertices[0, rig.faces[embedding.faces[4]]]
    torch.testing.assert_close(got, embedding.barycentrics[4] @ corners)


def test_joints_follow_pose_and_translation():
    rig = tiny_rig()
    params = random_params(rig, 1)
    rest = rig.joint_regressor @ (
        rig.template + torch.einsum("s,svk->vk", params.shape, rig.shape_basis) + torch.einsum("e,evk->vk", params.expr[0], rig.expr_basis)
    )
    still = replace(params, **{k: torch.zeros_like(getattr(params, k)) for k in ("rotation", "neck_pose", "jaw_pose", "eyes_pose")})
    torch.testing.assert_close(rig.joint_positions(still)[0], rest + params.translation)
    turned = rig.joint_positions(params)[0]
    torch.testing.assert_close(turned[0], rest[0] + params.translation[0])  # the root turns about itself
    for j, parent in enumerate(rig.joint_parents[1:], 1):  # bones keep their length
        torch.testing.assert_close((turned[j] - turned[parent]).norm(), (rest[j] - rest[parent]).norm(), rtol=1e-4, atol=1e-6)


def test_eyes_pose_is_left_then_right(procedural):
    params = procedural.neutral()
    params.eyes_pose[0, 1] = 0.4  # left, towards +x
    moved = (procedural.vertices(params)[0] - procedural.template).norm(dim=-1) > 1e-5
    assert moved[procedural.regions["left_eye"]].float().mean() > 0.9
    assert not moved[procedural.regions["right_eye"]].any()
    assert not moved[~procedural.regions["eyes"]].any()


@pytest.mark.parametrize("name", ["shape", "expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation", "static_offset"])
def test_wrong_sizes_are_named(name):
    rig = tiny_rig()
    params = random_params(rig, 3, offset=True)
    wrong = replace(params, **{name: torch.zeros(*getattr(params, name).shape[:-1], 9)})
    with pytest.raises(ValueError, match=rf"{name} must be \["):
        rig.vertices(wrong)


def test_batches_that_differ_are_refused():
    rig = tiny_rig()
    with pytest.raises(ValueError, match=r"rotation must be \[3, 3\], got \[1, 3\]"):
        rig.vertices(replace(random_params(rig, 3), rotation=torch.zeros(1, 3)))


def test_unknown_landmarks_are_named():
    with pytest.raises(ValueError, match=r"no landmarks 'dlib'; it has \['ibug68'\]"):
        tiny_rig().landmark_points(torch.zeros(1, 11, 3), "dlib")


def test_mesh_takes_one_timestep():
    rig = tiny_rig()
    assert rig.mesh(rig.neutral()).vertices.shape == (11, 3)
    with pytest.raises(ValueError, match="one timestep, got 2"):
        rig.mesh(rig.neutral(2))


def test_no_timesteps_give_no_vertices():
    assert tiny_rig().vertices(tiny_rig().neutral(0)).shape == (0, 11, 3)


def test_to_moves_every_float_and_keeps_numbers():
    rig = tiny_rig().to(dtype=torch.float64)
    assert rig.template.dtype == rig.pose_basis.dtype == rig.landmarks["ibug68"].barycentrics.dtype == torch.float64
    assert rig.faces.dtype == torch.int64
    assert rig.regions["face"].dtype == torch.bool
