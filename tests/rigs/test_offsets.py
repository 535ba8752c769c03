from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.rigs import load_rig
from gafcore.rigs.offsets import with_static_offset
from tests.cases.ball import ball_params, ball_rig


@pytest.fixture(scope="module")
def rig():
    return load_rig("procedural")


@pytest.fixture
def posed(rig):
    generator = torch.Generator().manual_seed(3)
    params = rig.neutral(4)
    return replace(
        params,
        rotation=0.4 * torch.randn(4, 3, generator=generator),
        neck_pose=0.2 * torch.randn(4, 3, generator=generator),
        translation=0.1 * torch.randn(4, 3, generator=generator),
    )


def curtain(rig) -> torch.Tensor:
    """Three centimetres of hair behind the neck."""
    offset = torch.zeros(rig.n_vertices, 3)
    nape = rig.regions["neck"] & (rig.template[:, 2] < rig.template[rig.regions["neck"], 2].mean())
    offset[nape, 2] = -0.03
    return offset


def test_the_face_stays_though_the_joints_move(rig, posed):
    offset, face = curtain(rig), torch.nonzero(rig.regions["nose"])[:, 0]
    slipped = rig.vertices(replace(posed, static_offset=offset), face) - rig.vertices(posed, face)
    new = with_static_offset(rig, posed, offset)
    kept = rig.vertices(new, face) - rig.vertices(posed, face)
    assert float(slipped.norm(dim=-1).max()) > 1e-3  # else there is nothing to show
    assert float(kept.norm(dim=-1).max()) < 1e-6
    assert torch.equal(new.static_offset, offset) and torch.equal(new.rotation, posed.rotation)


def test_taking_it_away_again_gives_the_same_poses(rig, posed):
    there = with_static_offset(rig, posed, curtain(rig))
    back = with_static_offset(rig, there, None)
    assert back.static_offset is None
    torch.testing.assert_close(back.translation, posed.translation, atol=1e-6, rtol=0)


def test_an_offset_that_moves_no_joint_changes_no_translation(rig, posed):
    offset = torch.zeros(rig.n_vertices, 3)
    free = rig.regions["ears"] & (rig.joint_regressor == 0).all(0)
    assert bool(free.any())
    offset[free, 0] = 0.01
    torch.testing.assert_close(with_static_offset(rig, posed, offset).translation, posed.translation, atol=1e-7, rtol=0)


def test_where_everything_moves_nothing_is_taken_back():
    rig = ball_rig()
    params = ball_params(rig)
    new = with_static_offset(rig, params, torch.full((rig.n_vertices, 3), 0.01))
    assert torch.equal(new.translation, params.translation)


def test_gradients_reach_the_offset(rig, posed):
    offset = curtain(rig).requires_grad_()
    rig.vertices(with_static_offset(rig, posed, offset)).square().sum().backward()
    assert float(offset.grad[rig.regions["neck"]].abs().max()) > 0


def test_the_face_stays_where_it_already_had_an_offset(rig, posed):
    dense = 0.002 * torch.randn(rig.n_vertices, 3, generator=torch.Generator().manual_seed(1))
    fitted, face = replace(posed, static_offset=dense), torch.nonzero(rig.regions["nose"])[:, 0]
    new = with_static_offset(rig, fitted, dense + curtain(rig))
    assert float((rig.vertices(new, face) - rig.vertices(fitted, face)).norm(dim=-1).max()) < 1e-6
