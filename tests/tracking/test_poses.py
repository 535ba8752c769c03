"""Poses as matrices: there and back from a rig's parameters, and how they compose."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from gafcore.rigs import load_rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.poses import Poses, poses_of, rotation_and_translation


def params_of(rig, n=4):
    g = torch.Generator().manual_seed(3)
    noise = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return replace(rig.neutral(n), rotation=0.3 * noise(n, 3), translation=0.1 * noise(n, 3), shape=0.5 * noise(rig.n_shape))


def test_they_move_what_follows_the_root_as_the_rig_does():
    rig = load_rig("procedural")
    params = params_of(rig)
    # Nothing but root and neck turns, and the neck's joint does not: every vertex moves with the root.
    rest = rig.vertices(replace(rig.neutral(1), shape=params.shape)).double().expand(4, -1, -1)
    assert torch.allclose(poses_of(rig, params).place(rest), rig.vertices(params).double(), atol=1e-6)


def test_parameters_come_back():
    rig = load_rig("procedural")
    params = params_of(rig)
    which = torch.tensor([True, False, True, True])
    other = replace(params, rotation=params.rotation.flip(1), translation=-params.translation)
    rotation, translation = rotation_and_translation(rig, params, poses_of(rig, other)[[0, 2, 3]], which)
    assert torch.allclose(rotation[which].float(), other.rotation[which], atol=1e-6)
    assert torch.allclose(translation[which].float(), other.translation[which], atol=1e-6)
    assert torch.equal(rotation[1].float(), params.rotation[1]) and torch.equal(translation[1].float(), params.translation[1])


def test_a_move_turns_about_its_centre_and_then_shifts():
    poses = Poses(torch.eye(3).double()[None], torch.tensor([[0.0, 0.0, -1.0]]).double())
    centre = torch.tensor([[0.1, 0.0, -1.0]]).double()
    step = torch.tensor([[0.0, 0.0, math.pi / 2, 0.0, 0.0, 0.5]]).double()
    moved = poses.moved(step, centre)
    points = torch.tensor([[[0.1, 0.0, 0.0], [0.3, 0.0, 0.0]]]).double()
    assert torch.allclose(moved.place(points), torch.tensor([[[0.1, 0.0, -0.5], [0.1, 0.2, -0.5]]]).double())
    assert torch.allclose(moved.turn[0], axis_angle_to_matrix(step[:, :3])[0])


def test_some_frames_are_replaced():
    poses = Poses(torch.eye(3).double().repeat(3, 1, 1), torch.zeros(3, 3).double())
    other = Poses(2 * torch.eye(3).double()[None], torch.ones(1, 3).double())
    after = poses.with_frames([1], other)
    assert after.shift.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]] and float(after.turn[1, 0, 0]) == 2
    assert torch.equal(poses.shift, torch.zeros(3, 3).double()) and len(after) == 3 and len(after[[0, 2]]) == 2
