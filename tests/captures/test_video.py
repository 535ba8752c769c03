from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from gafcore.captures import video
from gafcore.captures.pictures_source import natural_key, on_white, to_rgb_or_rgba
from gafcore.captures.video_source import orientation, upright
from gafcore.errors import InputError, MissingError


def numbered(i: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture whose corner blocks tell its number and which way is up, sturdy enough for lossy codecs."""
    picture = np.full((height, width, 3), 40, np.uint8)
    picture[: height // 2, : width // 2] = (230, 30, 30)
    picture[: height // 2, width // 2 :] = (30, 230, 30)
    picture[height // 2 :, width // 2 :] = 8 * (i % 30)
    return picture


def write_video(path, n=12, size=(64, 48), codec="mpeg4", pts=None, rate=25, gop=5):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size, stream.bit_rate = gop, 4_000_000
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(numbered(i, *size), format="rgb24")
            frame.pts, frame.time_base = (pts[i] if pts else i * 40), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate_in_header(path, matrix):
    """Writes a display matrix into the track header, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    data[start : start + 36] = np.array(matrix, dtype=">i4").tobytes()
    path.write_bytes(bytes(data))


QUARTER, UNIT = 1 << 16, 1 << 30
MATRICES = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),  # turned clockwise to display: a phone held upright
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).transpose(1, 0, 2),
}


def fixed_point(a, b, c, d):
    return [a * QUARTER, b * QUARTER, 0, c * QUARTER, d * QUARTER, 0, 0, 0, UNIT]


def corner(picture):
    """Mean of the middle of the lower right block: its number times eight."""
    height, width = picture.shape[:2]
    return picture[5 * height // 8 : 7 * height // 8, 5 * width // 8 : 7 * width // 8].mean()


@pytest.mark.parametrize("abcd", MATRICES, ids=str)
def test_display_matrix(abcd):
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    got = upright(picture, *orientation(np.array(fixed_point(*abcd), np.int32)))
    np.testing.assert_array_equal(got, MATRICES[abcd](picture))


def test_every_point_goes_where_the_matrix_sends_it():
    """Against the definition: a point (x, y) counted from the picture's middle is displayed at (a x + c y, b x + d y)."""
    for abcd in MATRICES:
        a, b, c, d = abcd
        picture = np.zeros((5, 7, 3), np.uint8)
        picture[1, 5] = 255  # x = 2, y = -1 from the middle
        shown = upright(picture, *orientation(np.array(fixed_point(*abcd), np.int32)))
        row, column = np.argwhere(shown[..., 0])[0]
        assert (column - shown.shape[1] // 2, row - shown.shape[0] // 2) == (2 * a - c, 2 * b - d), abcd


def test_display_matrix_that_is_no_quarter_turn():
    with pytest.raises(ValueError, match="not a quarter turn"):
        orientation(np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, UNIT], np.int32))


@pytest.mark.parametrize("abcd", [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1)], ids=str)
def test_rotated_phone_video(tmp_path, abcd):
    path = write_video(tmp_path / "clip.mp4")
    plain = video.read(path).image(3)
    rotate_in_header(path, fixed_point(*abcd))
    clip = video.read(path)
    want = MATRICES[abcd](plain)
    assert (clip.height, clip.width) == want.shape[:2]
    np.testing.assert_array_equal(clip.image(3), want)


def test_odd_sizes_order_and_times(tmp_path):
    clip = video.read(write_video(tmp_path / "clip.avi", size=(63, 47)))
    assert (len(clip), clip.width, clip.height, clip.name, clip.has_alpha) == (12, 63, 47, "clip.avi", False)
    assert [round(corner(picture) / 8) for picture in clip] == list(range(12))
    np.testing.assert_allclose(clip.times_s, np.arange(12) * 0.04, atol=1e-6)
    assert clip.fps == pytest.approx(25) and clip.alpha(0) is None


def test_variable_frame_rate_keeps_its_time_stamps(tmp_path):
    stamps = [0, 40, 80, 200, 210, 400, 440, 900, 940, 1000, 1040, 1500]
    clip = video.read(write_video(tmp_path / "clip.mkv", pts=stamps))
    np.testing.assert_allclose(clip.times_s, np.array(stamps) / 1000, atol=1e-3)
    assert clip.fps == pytest.approx(11 / 1.5, rel=1e-2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_random_access_without_memory_equals_in_order(tmp_path, suffix):
    path = write_video(tmp_path / f"clip.{suffix}")
    held, bare = video.read(path), video.read(path, cache_bytes=0)
    for i in (0, 1, 7, 7, 2, 11, 0, 3, 4, 10):
        np.testing.assert_array_equal(held.image(i), bare.image(i))


def test_far_jumps_seek(tmp_path):
    path = write_video(tmp_path / "clip.mp4", n=200, size=(32, 32))
    held, bare = video.read(path), video.read(path, cache_bytes=0)
    for i in (199, 5, 120, 190, 60, 199, 0):
        np.testing.assert_array_equal(held.image(i), bare.image(i))


def test_memory_is_bounded(tmp_path):
    clip = video.read(write_video(tmp_path / "clip.mp4"), cache_bytes=3 * 64 * 48 * 3 + 1)
    assert [round(corner(x) / 8) for x in itertools.chain(clip, clip)] == [*range(12), *range(12)]
    assert clip.source._cache.bytes_used <= 3 * 64 * 48 * 3


def test_max_frames(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    assert len(video.read(path, max_frames=5)) == 5
    with pytest.raises(InputError, match="max_frames must be >= 1, got 0"):
        video.read(path, max_frames=0)
    with pytest.raises(IndexError, match=r"frames 0\.\.4, got 5"):
        video.read(path, max_frames=5).image(5)


def test_refusals_name_the_file(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    (tmp_path / "notes").mkdir()
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index at the end is gone
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    messages = {
        "empty.mp4": "the file is empty",
        "text.mp4": "not readable as a video",
        "cut.mp4": "not readable as a video",
        "sound.wav": "no video stream",
        "notes": "no pictures in this folder",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=rf"{name}: {message}"):
            video.read(tmp_path / name)
    with pytest.raises(MissingError, match=r"absent\.mp4: no such file"):
        video.read(tmp_path / "absent.mp4")


def test_damage_in_the_middle_names_a_frame_or_still_decodes(tmp_path):
    path = write_video(tmp_path / "clip.mp4", n=30)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(whole)
        start = int(rng.integers(100, len(whole) - 64))
        damaged[start : start + 64] = rng.integers(0, 256, 64, np.uint8).tobytes()
        path.write_bytes(bytes(damaged))
        try:
            clip = video.read(path)
            assert all(picture.shape == (clip.height, clip.width, 3) for picture in clip)
        except InputError as error:
            assert str(path) in str(error)


def test_folder_in_natural_order(tmp_path):
    for i in (10, 9, 1, 2, 100):
        Image.fromarray(numbered(i % 30)).save(tmp_path / f"frame_{i}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    clip = video.read(tmp_path)
    assert [round(corner(x) / 8) for x in clip] == [1, 2, 9, 10, 100 % 30]
    np.testing.assert_allclose(clip.times_s, np.arange(5) / video.FOLDER_FPS)
    assert sorted(["b2", "a10", "a9", "A1", "10", "9"], key=natural_key) == ["9", "10", "A1", "a9", "a10", "b2"]


def test_folder_with_two_sizes_names_the_picture(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("RGB", (6, 9)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: frame 1 is 6x9, but frame 0 is 8x6"):
        video.read(tmp_path)
    Image.new("RGB", (6, 8)).save(tmp_path / "b.png")  # could be the same, turned by its metadata: known when decoded
    with pytest.raises(InputError, match=r"b\.png: frame 1 is 6x8, but frame 0 is 8x6"):
        video.read(tmp_path).image(1)


def test_folder_with_a_broken_picture_names_it(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(png[: len(png) // 2])
    clip = video.read(tmp_path)
    with pytest.raises(InputError, match=r"b\.png: frame 1 cannot be decoded"):
        clip.image(1)
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.png: not readable as a picture"):
        video.read(tmp_path)


def test_four_channels_lie_on_white_and_keep_their_alpha(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    clip = video.read(tmp_path / "a.png")
    a = rgba[..., 3:] / 255
    np.testing.assert_allclose(clip.image(0), rgba[..., :3] * a + 255 * (1 - a), atol=0.51)
    np.testing.assert_array_equal(clip.alpha(0), rgba[..., 3])
    assert len(clip) == 1 and clip.has_alpha and clip.fps == video.FOLDER_FPS
    assert (on_white(np.zeros((1, 1, 4), np.uint8)) == 255).all()


def test_depths_and_modes():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(to_rgb_or_rgba(Image.fromarray(ramp))[..., 1], np.arange(256).reshape(16, 16))
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (to_rgb_or_rgba(Image.fromarray(grey)) == grey[..., None]).all()
    np.testing.assert_array_equal(to_rgb_or_rgba(Image.fromarray((grey / 255).astype(np.float32)))[..., 0], grey)
    with pytest.raises(ValueError, match=r"values in 0\.\.1"):
        to_rgb_or_rgba(Image.fromarray(grey.astype(np.float32)))
    palette = Image.fromarray(grey).convert("P")
    palette.info["transparency"] = 0
    assert to_rgb_or_rgba(palette).shape == (16, 16, 4)
    assert to_rgb_or_rgba(Image.fromarray(grey).convert("LA")).shape == (16, 16, 4)
    assert to_rgb_or_rgba(Image.fromarray(grey).convert("CMYK")).shape == (16, 16, 3)


def test_exif_orientation(tmp_path):
    picture = Image.fromarray(numbered(3))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn clockwise to display
    picture.save(tmp_path / "a.png", exif=exif)
    picture.rotate(-90, expand=True).save(tmp_path / "b.png")
    clip = video.read(tmp_path)
    assert (clip.width, clip.height) == (48, 64)
    np.testing.assert_array_equal(clip.image(0), clip.image(1))


def test_animated_picture_file(tmp_path):
    pages = [Image.fromarray(numbered(i)) for i in range(4)]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:], duration=40)
    assert [round(corner(x) / 8) for x in video.read(tmp_path / "a.png")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "n", "size", "fps"),
    [
        ("clips/expressive.mp4", 354, (512, 512), 30),
        ("clips/turning_lowres.gif", 23, (480, 270), 12),
        ("portraits/astronaut.png", 1, (512, 512), 25),
    ],
)
def test_real_clips(test_data, name, n, size, fps):
    clip = video.read(test_data(name))
    assert (len(clip), (clip.width, clip.height)) == (n, size)
    assert clip.fps == pytest.approx(fps, rel=0.01)
    assert clip.image(n - 1).shape == (size[1], size[0], 3) and clip.image(n - 1).std() > 10
