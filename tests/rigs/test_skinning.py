from __future__ import annotations

import math

import pytest
import torch

from gafcore.rigs import skinning
from tests.reference import rigs as reference


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.0999, 0.1, 0.1001, 1.0, math.pi, 6.0])
def test_rotation_is_the_matrix_exponential(angle):
    axis = torch.tensor([0.36, -0.48, 0.8], dtype=torch.float64)
    got = skinning.axis_angle_to_matrix(angle * axis)
    torch.testing.assert_close(got, reference.rotation(angle * axis), rtol=0, atol=1e-14)


def test_rotation_in_float32():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    got = skinning.axis_angle_to_matrix(x)
    want = torch.stack([reference.rotation(v.double()) for v in x])
    torch.testing.assert_close(got.double(), want, rtol=0, atol=5e-7)


@pytest.mark.parametrize("scale", [0.0, 0.05, 0.1, 1.0])
def test_rotation_gradient_also_at_zero(scale):
    x = (scale * torch.tensor([[0.3, -0.7, 0.2], [0.0, 0.0, 0.0]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(skinning.axis_angle_to_matrix, (x,))


def test_quarter_turn_about_z_takes_x_to_y():
    turned = skinning.axis_angle_to_matrix(torch.tensor([0, 0, math.pi / 2])) @ torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)


def test_child_joint_follows_its_parent():
    quarter = skinning.axis_angle_to_matrix(torch.tensor([0, 0, math.pi / 2]))
    rotations = torch.stack([quarter, torch.eye(3)])[None]
    joints = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]])
    rotation, translation = skinning.joint_transforms(rotations, joints, (-1, 0))
    point = rotation[0, 1] @ torch.tensor([2.0, 0, 0]) + translation[0, 1]
    torch.testing.assert_close(point, torch.tensor([0.0, 2.0, 0.0]), rtol=0, atol=1e-6)


def test_blend_with_no_shapes_is_the_base():
    base = torch.randn(4, 3)
    torch.testing.assert_close(skinning.blend(base, torch.zeros(0, 4, 3), torch.zeros(2, 0)), base.expand(2, 4, 3))
