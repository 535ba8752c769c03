"""The matte against heads whose alpha and colours are known."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from gafcore.captures.video import Clip
from gafcore.errors import MissingError
from gafcore.tracking.mask import HeadLimits, full_size
from gafcore.tracking.matte import Matte, face_sizes, frame_matte, head_mattes
from tests.tracking.toy import toy_detections, toy_motion, toy_rig

N, FACE_PX = 512, 200.0
HAIR, WALL = np.float32((0.25, 0.16, 0.1)), np.float32((0.8, 0.78, 0.7))
GREEN = (0.1, 0.8, 0.2)


@pytest.fixture(scope="module")
def alpha():
    """A disc with a fuzzy rim, and strands of hair about it; [N, N] in 0..1."""
    y, x = np.mgrid[:N, :N].astype(np.float32) + 0.5
    radius, angle = np.hypot(x - 256, y - 230), np.arctan2(y - 230, x - 256)
    disc = np.clip((130 - radius) / 8 + 0.5, 0, 1)
    strands = [0.8 * np.exp(-(((radius - at - 2 * np.sin(9 * angle)) / 1.5) ** 2)) * (np.abs(np.sin(angle)) < 0.8) for at in (136, 141)]
    return np.maximum(disc, np.max(strands, axis=0)).astype(np.float32)


def _network(alpha):
    """What a network makes of it at 256 px: shifted and eroded, without strands."""
    small = cv2.resize(alpha, (N // 2, N // 2), interpolation=cv2.INTER_AREA)
    blob = cv2.morphologyEx((small > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    blob = np.roll(cv2.erode(blob, np.ones((5, 5), np.uint8)), (2, 3), (0, 1))
    return (cv2.GaussianBlur(blob.astype(np.float32), (0, 0), 1.0) * 255 + 0.5).astype(np.uint8)


def _picture(alpha, head, wall, noise=0.01):
    """uint8 [N, N, 3] of a head colour and a wall colour, either may vary over the picture."""
    mixed = alpha[..., None] * head + (1 - alpha[..., None]) * wall
    return (np.clip(mixed + np.random.default_rng(0).normal(0, noise, mixed.shape), 0, 1) * 255 + 0.5).astype(np.uint8)


def _smooth_wall():
    light = np.linspace(0.85, 1.1, N, dtype=np.float32)
    return WALL * light[None, :, None] * light[:, None, None]


def _open(shape=(N // 2, N // 2)):
    return HeadLimits(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))


def _error(got, alpha):
    """Mean error of an alpha (uint8 at any size, or a Matte) where the truth is not plain, and about there."""
    got = got.alpha() / 255 if isinstance(got, Matte) else full_size(got, N, N).numpy()
    rim = cv2.dilate(((alpha > 0.02) & (alpha < 0.98)).astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
    return float(np.abs(got - alpha)[rim].mean())


def test_alpha_and_colours_of_a_fuzzy_head_on_a_wall(alpha):
    person, wall = _network(alpha), _smooth_wall()
    picture = _picture(alpha, HAIR, wall)
    matte = frame_matte(picture, person, _open(), FACE_PX)
    assert _error(person, alpha) > 0.15
    assert _error(matte, alpha) < 0.05  # most of it: what counts as either end
    on_green = matte.composite(picture, GREEN)
    assert on_green.shape == (N, N, 3)
    assert on_green.dtype == np.float32
    half = (alpha > 0.5) & (alpha < 0.9) & (matte.alpha() > 50)
    assert half.sum() > 2000
    a = matte.alpha()[half][:, None] / 255
    head = (on_green[half] - (1 - a) * np.float32(GREEN)) / a  # F
    assert np.abs(head.mean(0) - HAIR).max() < 0.04
    assert np.abs(picture[half].mean(0) / 255 - HAIR).max() > 0.15  # in the picture the wall's colour is in it
    np.testing.assert_array_equal(on_green[matte.alpha() == 0], np.broadcast_to(np.float32(GREEN), (N, N, 3))[matte.alpha() == 0])
    np.testing.assert_allclose(on_green[matte.alpha() == 255], picture[matte.alpha() == 255] / 255, atol=1e-6)


@pytest.mark.parametrize("face_px", [30.0, 72.0, 97.0])
def test_small_faces(alpha, face_px):
    n = round(N * face_px / FACE_PX)
    small = cv2.resize(alpha, (n, n), interpolation=cv2.INTER_AREA)
    person = cv2.resize(_network(alpha), (n, n), interpolation=cv2.INTER_AREA)
    picture = cv2.resize(_picture(alpha, HAIR, _smooth_wall()), (n, n), interpolation=cv2.INTER_AREA)
    got = frame_matte(picture, person, _open((n, n)), face_px).alpha() / 255
    assert np.abs(got - small).mean() < 0.35 * np.abs(person / 255 - small).mean()


def test_a_wall_of_the_hairs_colour_leaves_the_networks_mask(alpha):
    person = _network(alpha)
    picture = _picture(alpha, HAIR, HAIR * np.ones((N, N, 1), np.float32))
    matte = frame_matte(picture, person, _open(), FACE_PX)
    assert np.abs(matte.alpha() / 255 - full_size(person, N, N).numpy()).max() < 0.03
    np.testing.assert_allclose(matte.composite(picture, (1, 1, 1)), _plain(picture, matte.alpha()), atol=0.02)


def _plain(picture, alpha):
    a = alpha[..., None] / np.float32(255)
    return picture / np.float32(255) * a + (1 - a)


@pytest.mark.parametrize("cell", [4, 16, 40])
def test_clutter_does_little_harm(alpha, cell):
    person = _network(alpha)
    cells = np.random.default_rng(1).random((N // cell + 1, N // cell + 1, 3)).astype(np.float32)
    wall = cv2.resize(cells, (N, N), interpolation=cv2.INTER_NEAREST)
    assert _error(frame_matte(_picture(alpha, HAIR, wall), person, _open(), FACE_PX), alpha) < 1.05 * _error(person, alpha)


def test_grey_pictures(alpha):
    person = _network(alpha)
    picture = _picture(alpha, np.full(3, 0.2, np.float32), np.full((N, N, 3), 0.9, np.float32))
    assert _error(frame_matte(picture, person, _open(), FACE_PX), alpha) < 0.05


def test_a_hole_that_the_network_sees_is_taken_out():
    y, x = np.mgrid[:N, :N] + 0.5
    alpha = ((np.hypot(x - 256, y - 256) < 150) & (np.hypot(x - 300, y - 256) > 20)).astype(np.float32)
    person = cv2.resize((alpha * 255).astype(np.uint8), (N // 2, N // 2), interpolation=cv2.INTER_AREA)
    got = frame_matte(_picture(alpha, HAIR, _smooth_wall()), person, _open(), FACE_PX).alpha()
    assert got[240:272, 290:310].max() < 6
    assert got[200:312, 150:250].min() == 255


def test_neck_and_other_people_stay_cut(alpha):
    """Limits are not moved by colours: at 0 nothing comes back, at the floor nothing goes away, and the cut's edge has no wall in it."""
    limits = _open()
    limits.ceiling[150:] = 0  # the neck's cut, at 300 px
    limits.ceiling[148:150] = 128
    limits.ceiling[:, 190:] = 0  # another person beside
    limits.floor[60:80, 180:186] = 255  # of the face, where neither network nor colours see it
    picture = _picture(alpha, HAIR, _smooth_wall())
    matte = frame_matte(picture, np.maximum(_network(alpha), 255 * (np.arange(N // 2) > 200).astype(np.uint8)), limits, FACE_PX)
    got = matte.alpha()
    assert got[302:].max() == 0
    assert got[:, 382:].max() == 0
    assert got[122:158, 362:370].min() == 255
    inside = (slice(297, 299), slice(200, 300))
    np.testing.assert_allclose(got[inside] / 255, 0.5, atol=0.01)
    np.testing.assert_allclose(matte.composite(picture, (1, 1, 1))[inside], _plain(picture, got)[inside], atol=1e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_masks_that_are_empty_or_full(value):
    person = np.full((64, 64), value, np.uint8)
    picture = np.random.default_rng(0).integers(0, 256, (100, 128, 3), dtype=np.uint8)
    matte = frame_matte(picture, person, _open((64, 64)), 50.0)
    np.testing.assert_array_equal(matte.alpha(), np.full((100, 128), value))
    np.testing.assert_allclose(matte.composite(picture, (1, 1, 1)), picture / 255 if value else np.ones((100, 128, 3)), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (17, 5)])
@pytest.mark.parametrize("face_px", [0.0, 1.0, 5.0, 1e5])
def test_degenerate_sizes(size, face_px):
    rng = np.random.default_rng(0)
    picture, person = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, 256, size, dtype=np.uint8)
    matte = frame_matte(picture, person, _open(size), face_px)
    assert matte.alpha().shape == size
    assert np.isfinite(matte.composite(picture, (1, 1, 1))).all()


class _Pictures:
    def __init__(self, pictures):
        self._pictures = pictures

    def pixels(self, i):
        return self._pictures[i]


@pytest.fixture(scope="module")
def clip(alpha):
    """Six frames; no face in the second and the last one."""
    rig = toy_rig()
    detections = toy_detections(rig, toy_motion(rig, 6), 900.0)
    found = torch.tensor([True, False, True, True, True, False])
    person = torch.from_numpy(np.stack([np.roll(_network(alpha), t, 1) for t in range(6)]))
    landmarks = torch.where(found[:, None, None], detections.landmarks, torch.nan)
    detections = replace(detections, found=found, landmarks=landmarks, person=person, width=N, height=N)
    pictures = [np.roll(_picture(alpha, HAIR, _smooth_wall()), 2 * t, 1) for t in range(6)]
    return Clip("hair", N, N, detections.times_s.numpy(), 30.0, False, _Pictures(pictures)), detections


def test_frames_without_a_face_have_their_neighbours_size(clip):
    _, detections = clip
    sizes = face_sizes(detections)
    assert np.isfinite(sizes).all()
    assert sizes[1] == pytest.approx((sizes[0] + sizes[2]) / 2)
    assert sizes[5] == sizes[4]


def test_any_number_of_threads_gives_the_same_bits(clip, monkeypatch):
    made = []
    for n in (1, 2, 4):
        monkeypatch.setattr("gafcore.tracking.threads._threads", lambda n=n: n)
        cv2.setNumThreads(n)
        made.append(head_mattes(*clip, [_open()] * 6))
    cv2.setNumThreads(-1)
    for other in made[1:]:
        assert [m.packed for m in other] == [m.packed for m in made[0]]
        assert all(np.array_equal(a.background, b.background) for a, b in zip(made[0], other, strict=True))
    assert len({m.packed for m in made[0]}) == 6


def test_little_is_kept_of_a_frame(clip):
    for matte in head_mattes(*clip, [_open()] * 6):
        assert len(matte.packed) + matte.background.nbytes < 60_000  # float32 alpha and picture: 4 MB


def test_without_opencv_the_error_says_what_to_install(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingError, match=r"gafcore\[track\]"):
        head_mattes(*clip, [_open()] * 6)
