from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gafcore.avatars import init_avatar, write_params
from gafcore.cameras import camera_position, from_angles
from gafcore.export import Shot, camera_shots, motion_shots, orbit_shots, render_shots, video
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


def test_shots_of_this_person_are_drawn_by_a_compiled_renderer_where_asked(avatar, tmp_path, monkeypatch):
    made = []

    class Watched(video.CompiledRenderer):
        def __init__(self, avatar, width, height, **options):
            super().__init__(avatar, width, height, **options)
            made.append([(width, height), 0])

        def close(self):
            made[-1][1] += 1
            super().close()

    monkeypatch.setattr(video, "CompiledRenderer", Watched)
    avatar = replace(avatar, params=replace(avatar.params, static_offset=torch.full_like(avatar.rig.template, 0.001)))
    write_params(tmp_path / "motion.npz", ball_params(avatar.rig)[1:3])
    camera = from_angles(0.3, 0, 1.0, focal_px=60, width=24, height=24)
    shots = [*orbit_shots(avatar, 3, 60, 40), *camera_shots(avatar, [camera])[2:], *motion_shots(avatar, tmp_path / "motion.npz", camera)]
    background = torch.tensor([0.0, 0.5, 1.0])
    plain = list(render_shots(avatar, shots, background))
    assert made == []  # nothing changes on a CPU
    for a, b in zip(render_shots(avatar, shots, background, compiled=True), plain, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and abs(a.astype(int) - b).max() <= 1
    assert made == [[(60, 40), 1], [(24, 24), 1]]
    wider = Shot(camera, replace(avatar.params[0], shape=torch.full_like(avatar.params.shape, 3.0)))
    (a,), (b,) = (render_shots(avatar, [wider], compiled=c) for c in (True, False))
    assert np.array_equal(a, b) and len(made) == 2
    first = next(pictures := render_shots(avatar, shots, compiled=True))
    pictures.close()  # before its end
    assert first.shape == (40, 60, 3) and made[2] == [(60, 40), 1]
