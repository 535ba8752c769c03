"""Movies are read back by the library that everybody's player uses."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from gafcore.errors import InputError
from gafcore.movies import write_frames


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


def test_a_folder_is_replaced_only_if_it_holds_numbered_pictures(tmp_path):
    write_frames(tmp_path, pictures())
    write_frames(tmp_path, pictures(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.png", "00001.png"]
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match=r"was not written by this: holiday\.jpg"):
        write_frames(tmp_path, pictures())
    assert (tmp_path / "holiday.jpg").exists() and (tmp_path / "00001.png").exists()


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
