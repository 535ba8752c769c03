"""Which frame is shown with which gain and offset."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars import init_avatar
from gafcore.errors import InputError
from gafcore.evaluation import color_of, evaluate, stored_color
from tests.cases.ball import ball_capture


@pytest.fixture(scope="module")
def capture():
    """Four timesteps, two cameras; camera 0 trains on the first three."""
    whole = ball_capture()
    camera_0 = tuple(i for i, f in enumerate(whole.frames) if f.camera_index == 0)
    others = tuple(i for i in range(len(whole.frames)) if i not in camera_0[:3])
    return replace(whole, splits={"train": camera_0[:3], "test": others})


ROWS = torch.arange(24.0).reshape(4, 2, 3) / 100


def test_training_frames_have_their_own_and_others_the_mean(capture):
    color = color_of(ROWS, capture)
    for i, frame in enumerate(capture.frames):
        want = ROWS[frame.timestep] if i in capture.splits["train"] else ROWS[:3].mean(0)
        torch.testing.assert_close(color(frame), want)


def test_the_mean_and_the_shared_one_hold_for_all(capture):
    mean, shared = color_of(ROWS, capture, mode="mean"), color_of(ROWS[:1], capture)
    for frame in capture.frames:
        torch.testing.assert_close(mean(frame), ROWS[:3].mean(0))
        assert torch.equal(shared(frame), ROWS[0])
    assert color_of(ROWS, capture, mode="none") is None


def test_the_right_correction_makes_renders_equal_to_the_pictures(capture):
    """Pictures are the avatar's own renders with a gain and an offset on the head, written out here."""
    avatar = init_avatar(capture.rig, capture.params, opacity=0.9)
    gain, offset = torch.tensor([1.2, 0.8, 0.9]), torch.tensor([0.02, -0.03, 0.05])
    clean = evaluate(avatar, capture, ["train"], samples=3, progress=False)

    def filmed(i, frame):
        image = clean.samples[i].image
        alpha = ((1 - image[..., :1]) / (1 - image[..., :1].amin())).clamp(0, 1)  # a grey ball on white
        return alpha, (image - (1 - alpha)) * gain + alpha * offset + (1 - alpha)

    frames = list(capture.frames)
    for i, number in enumerate(capture.splits["train"]):
        alpha, image = filmed(i, frames[number])
        frames[number] = replace(frames[number], image=lambda image=image: image, mask=lambda alpha=alpha: (alpha[..., 0] > 0.99).float())
    filmed_capture = replace(capture, frames=tuple(frames))
    rows = torch.stack([gain.log(), offset])[None]
    plain = evaluate(avatar, filmed_capture, ["train"], progress=False).mean("train")["head_psnr"]
    matched = evaluate(avatar, filmed_capture, ["train"], color=color_of(rows, filmed_capture), progress=False).mean("train")["head_psnr"]
    assert plain < 25 and matched > 40


def test_what_does_not_fit_is_refused(capture):
    with pytest.raises(InputError, match=r"must be \[1 or 4, 2, 3\], got \[3, 2, 3\]"):
        color_of(ROWS[:3], capture)
    with pytest.raises(InputError, match="no frames in split 'gone'"):
        color_of(ROWS, capture, "gone")


def test_the_manifests_values_are_checked(capture):
    assert stored_color("avatar.json", {}, capture) is None
    info = {"color_correction": ROWS.tolist(), "config": {"split": "train"}}
    torch.testing.assert_close(stored_color("avatar.json", info, capture)(capture.frames[0]), ROWS[0])
    for broken in ("abc", [["x"]], [[[True] * 3] * 2], [[1, 2], [3]], [[[float("nan")] * 3] * 2], {}, [[[10**400] * 3] * 2]):
        with pytest.raises(InputError, match=r"^avatar\.json: .*colo"):
            stored_color("avatar.json", {**info, "color_correction": broken}, capture)
