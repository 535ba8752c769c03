from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gafcore.avatars import init_avatar, write_params
from gafcore.cameras import camera_position, from_angles
from gafcore.errors import InputError
from gafcore.export import camera_shots, motion_shots, orbit_shots, render_shots, write_frames
from tests.cases.ball import ball_params, ball_rig


@pytest.fixture
def avatar():
    rig = ball_rig()
    params = ball_params(rig)
    params.translation[:] = torch.tensor([0.02, 0.0, 0.1])
    return init_avatar(rig, params, torch.rand(128, 3, generator=torch.Generator().manual_seed(0)), opacity=0.9)


def pictures(n: int = 5, height: int = 33, width: int = 47) -> list[np.ndarray]:
    ramp = np.linspace(40, 200, width, dtype=np.uint8)[None, :, None]
    return [np.broadcast_to(ramp + 2 * i, (height, width, 3)).astype(np.uint8) for i in range(n)]


@pytest.mark.parametrize(("height", "width"), [(33, 47), (32, 48), (1, 1)])
def test_a_video_plays_with_all_pictures_at_even_sizes(tmp_path, height, width):
    given = pictures(5, height, width)
    path = write_frames(tmp_path / "a.mp4", given, fps=25)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 25
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
    assert len(frames) == 5
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    for got, want in zip(frames, given, strict=True):
        assert np.abs(got[:height, :width].astype(int) - want).mean() < 6


def test_a_folder_of_pictures_is_exact(tmp_path):
    given = pictures()
    folder = write_frames(tmp_path / "frames", given)
    assert [p.name for p in sorted(folder.iterdir())] == [f"{i:05d}.png" for i in range(5)]
    np.testing.assert_array_equal(np.array(Image.open(folder / "00003.png")), given[3])


@pytest.mark.parametrize("name", ["a.mp4", "a"])
def test_nothing_is_left_of_a_failure(tmp_path, name):
    def broken():
        yield from pictures(2)
        raise RuntimeError("the renderer failed")

    with pytest.raises(RuntimeError, match="the renderer failed"):
        write_frames(tmp_path / name, broken())
    with pytest.raises(InputError, match="no pictures to write"):
        write_frames(tmp_path / name, [])
    with pytest.raises(InputError, match="picture 1 is 4x3, the first 47x33"):
        write_frames(tmp_path / name, [*pictures(1), np.zeros((3, 4, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_rates_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.gif: write a video \(.mp4, .mov, .mkv\) or"):
        write_frames(tmp_path / "a.gif", pictures())
    with pytest.raises(InputError, match="fps must be > 0, got 0"):
        write_frames(tmp_path / "a.mp4", pictures(), fps=0)


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
