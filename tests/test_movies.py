"""Movies are read back by the library that everybody's player uses."""

from __future__ import annotations

import av
import numpy as np
import pytest

from gafcore.movies import write_movie


def _read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.average_rate), [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_pictures_survive_up_to_compression(tmp_path):
    x = np.linspace(40, 200, 64).astype(np.uint8)
    pictures = [np.broadcast_to(x[None, :, None], (48, 64, 3)) + np.uint8(5 * i) for i in range(6)]
    assert write_movie(tmp_path / "a.mp4", iter(pictures), 12.0) == 6
    fps, got = _read(tmp_path / "a.mp4")
    assert fps == pytest.approx(12)
    assert len(got) == 6
    for a, b in zip(got, pictures, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 4


def test_odd_sizes_are_padded(tmp_path):
    write_movie(tmp_path / "odd.mp4", [np.full((31, 17, 3), 90, np.uint8)], 29.97)
    fps, got = _read(tmp_path / "odd.mp4")
    assert fps == pytest.approx(29.97, abs=1e-2)
    assert got[0].shape == (32, 18, 3)


@pytest.mark.parametrize(
    ("pictures", "fps", "message"),
    [
        ([], 10, "at least one"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], 10, "one size"),
        ([], 0, "fps must be > 0"),
    ],
)
def test_refusals_leave_no_file(tmp_path, pictures, fps, message):
    with pytest.raises(ValueError, match=message):
        write_movie(tmp_path / "bad.mp4", pictures, fps)
    assert list(tmp_path.iterdir()) == []
