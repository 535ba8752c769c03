from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gafcore.avatars import init_avatar, write_params
from gafcore.cameras import camera_position, from_angles
from gafcore.export import camera_shots, motion_shots, orbit_shots, render_shots
from tests.cases.ball import ball_params, ball_rig


@pytest.fixture
def avatar():
    rig = ball_rig()
    params = ball_params(rig)
    params.translation[:] = torch.tensor([0.02, 0.0, 0.1])
    return init_avatar(rig, params, torch.rand(128, 3, generator=torch.Generator().manual_seed(0)), opacity=0.9)


def test_an_orbit_swings_about_the_head(avatar):
    shots = orbit_shots(avatar, 8, 60, 40)
    positions = torch.stack([camera_position(s.camera) for s in shots])
    azimuth = torch.atan2(positions[:, 0], positions[:, 2]).rad2deg()
    torch.testing.assert_close(azimuth[[0, 2, 4, 6]], torch.tensor([0.0, 75, 0, -75]), atol=2, rtol=0)
    assert [torch.equal(s.params.expr, avatar.params[i % 4].expr) for i, s in enumerate(shots)] == [True] * 8
    still = orbit_shots(avatar, 3, 60, 40, still=True)
    assert all(torch.equal(s.params.expr, avatar.params[0].expr) for s in still)
    drawn = list(render_shots(avatar, shots))
    assert len(drawn) == 8 and drawn[0].shape == (40, 60, 3) and drawn[0].dtype == np.uint8
    for picture in drawn:  # the ball stays in the middle, and the corners white
        weight = 255.0 - picture.min(-1)
        rows, columns = np.indices(weight.shape)
        assert abs((weight * columns).sum() / weight.sum() - 29.5) < 3 and abs((weight * rows).sum() / weight.sum() - 19.5) < 4
        assert picture[0, 0].tolist() == [255, 255, 255]


def test_one_camera_or_one_a_timestep(avatar):
    camera = from_angles(0.5, 0.0, 1.0, focal_px=60, width=24, height=24)
    assert len(camera_shots(avatar, [camera])) == 4
    with pytest.raises(ValueError, match=r"cameras must be 1 or one a timestep \(4\), got 2"):
        camera_shots(avatar, [camera, camera])


def test_another_recordings_motion_keeps_this_persons_shape(avatar, tmp_path):
    other = replace(ball_params(avatar.rig)[:3], shape=torch.full((1,), 9.0))
    write_params(tmp_path / "motion.npz", other)
    shots = motion_shots(avatar, tmp_path / "motion.npz", from_angles(0, 0, 1.0, focal_px=60, width=24, height=24))
    assert len(shots) == 3
    assert torch.equal(shots[2].params.expr, other.expr[2:3]) and torch.equal(shots[0].params.shape, avatar.params.shape)
