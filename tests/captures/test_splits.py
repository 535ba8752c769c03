from __future__ import annotations

import pytest

from gafcore.captures.splits import check_splits, gaf_split, keyframes, thin
from gafcore.errors import InputError
from tests.captures.conftest import tiny_capture


def test_gaf_split_of_sixteen_cameras():
    frames = tiny_capture(n_timesteps=10, n_cameras=16, size=(1, 1)).frames
    splits = gaf_split(frames, 10)
    views = {name: {(frames[i].timestep, frames[i].camera_index) for i in ids} for name, ids in splits.items()}
    assert views["train"] == {(t, 8) for t in range(8)}
    assert views["novel_view"] == {(t, c) for t in range(8) for c in range(16) if c != 8}
    assert views["novel_expression"] == {(t, c) for t in (8, 9) for c in (6, 7, 8, 9, 10)}
    check_splits("here", splits, frames)


def test_thin_keeps_training_whole():
    frames = tiny_capture(n_timesteps=5, n_cameras=2, size=(1, 1)).frames
    splits = thin({"train": (0, 2, 4), "novel_view": (1, 3, 5), "novel_expression": (8, 9)}, frames, [1, 4])
    assert splits == {"train": (0, 2, 4), "novel_view": (3,), "novel_expression": (8, 9)}


def test_short_captures_still_train():
    frames = tiny_capture(n_timesteps=1, n_cameras=1, size=(1, 1)).frames
    assert gaf_split(frames, 1, train_camera=0)["train"] == (0,)
    with pytest.raises(ValueError, match=r"train_fraction must be in \(0, 1\], got 0"):
        gaf_split(frames, 1, train_fraction=0)


def test_held_out_splits_may_overlap_but_not_with_train():
    frames = tiny_capture().frames
    check_splits("here", {"train": (0,), "novel_view": (1, 2), "test": (2, 3)}, frames)
    with pytest.raises(InputError, match=r"here: frame 0 \(timestep 0, camera 0\) is in split 'test' and in 'train'"):
        check_splits("here", {"train": (0,), "test": (3, 0)}, frames)
    with pytest.raises(InputError, match="names frame -1"):
        check_splits("here", {"train": (-1,)}, frames)


def test_keyframes_are_those_of_the_paper():
    assert keyframes(56, 8) == [0, 7, 14, 21, 28, 35, 42, 55] and keyframes(56, 1) == [28]  # GAF, section 5.3
    assert keyframes(56, 56) == list(range(56)) and keyframes(5, 2) == [0, 4] and keyframes(1, 1) == [0]


@pytest.mark.parametrize("n_frames", [1, 2, 7, 56])
def test_keyframes_rise(n_frames):
    for n in range(1, n_frames + 1):
        places = keyframes(n_frames, n)
        assert len(places) == n and places == sorted(set(places)) and places[0] >= 0 and places[-1] < n_frames


@pytest.mark.parametrize("n", [0, 6, -1])
def test_keyframes_that_there_are_not(n):
    with pytest.raises(ValueError, match=r"n must be in 1\.\.5, got"):
        keyframes(5, n)
