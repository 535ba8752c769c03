from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from gafcore.avatars import init_avatar, render
from gafcore.errors import InputError
from gafcore.evaluation import compare, evaluate
from gafcore.evaluation.protocols import nearest_frame
from tests.cases.ball import ball_capture


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


@pytest.fixture(scope="module")
def avatar(capture):
    """The ball in one grey: wrong, so that errors differ from frame to frame."""
    return init_avatar(capture.rig, capture.params, opacity=0.9)


@pytest.fixture(scope="module")
def evaluation(capture, avatar):
    return evaluate(avatar, capture, samples=2, progress=False)


def test_every_frame_is_compared_with_its_own_camera_and_pose(capture, avatar, evaluation):
    assert [s.frame for s in evaluation.scores] == [*capture.splits["train"], *capture.splits["novel_view"]]
    for score in evaluation.scores:
        frame = capture.frames[score.frame]
        with torch.no_grad():
            image = render(avatar, [frame.camera], avatar.params[frame.timestep]).image[0]
        assert score.values == compare(image, frame.image(), frame.mask())
        assert (score.timestep, score.camera) == (frame.timestep, str(frame.camera_index))


def test_means_by_split_and_by_camera(evaluation):
    rows = [s.values["psnr"] for s in evaluation.scores if s.split == "train"]
    assert evaluation.mean("train")["psnr"] == pytest.approx(sum(rows) / len(rows))
    assert evaluation.by_camera("train") == {"0": evaluation.mean("train")}
    assert list(evaluation.by_camera("novel_view")) == ["1"]
    assert evaluation.splits == ("train", "novel_view")


def test_samples_show_what_fitting_saw_at_that_moment(capture, evaluation):
    assert [s.split for s in evaluation.samples] == ["train", "train", "novel_view", "novel_view"]
    last = evaluation.samples[-1]
    assert torch.equal(last.given, capture.frames[6].image()) and torch.equal(last.truth, capture.frames[7].image())


def test_the_nearest_moment_where_fitting_did_not_see_this_one(capture):
    thinner = replace(capture, splits={"train": (0, 4), "test": (7,)})
    assert nearest_frame(thinner, "train", capture.frames[7]) is capture.frames[4]
    assert nearest_frame(thinner, "gone", capture.frames[7]) is capture.frames[7]


def test_limits_and_wrong_input(capture, avatar):
    few = evaluate(avatar, capture, ["novel_view"], max_frames=2, samples=1, progress=False)
    assert [s.frame for s in few.scores] == [1, 7] and len(few.samples) == 1
    with pytest.raises(InputError, match=r"no frames in split 'tests'; it has \['train', 'novel_view'\]"):
        evaluate(avatar, capture, ["tests"], progress=False)
    for options in ({"max_frames": 0}, {"max_frames": -1}, {"samples": -1}):
        with pytest.raises(InputError, match="max_frames must be at least 1 and samples at least 0"):
            evaluate(avatar, capture, progress=False, **options)
    assert not evaluate(avatar, capture, ["train"], max_frames=1, samples=0, progress=False).samples
    with pytest.raises(InputError, match="the avatar has 2 timesteps, the capture 4"):
        evaluate(replace(avatar, params=avatar.params[:2]), capture, progress=False)


class Checker(HTMLParser):
    """Collects images and checks that tags close."""

    void = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_holds_everything_and_asks_for_nothing(evaluation, tmp_path):
    history = {"iteration": [10.0, 20.0, 30.0], "loss": [0.5, 0.3, 0.2], "psnr": [10.0, 20.0, 25.0], "n_gaussians": [128.0, 128.0, 150.0]}
    path = evaluation.write(tmp_path / "report", history)
    html = path.read_text()
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert len(checker.images) == 4 * 4 and all(src.startswith("data:image/jpeg;base64,") for src in checker.images)
    assert html.count("<svg") == 3 and not re.search(r"https?://|<script|<link", html)
    assert f"{evaluation.mean('novel_view')['head_psnr']:.2f}" in html and "LPIPS was not measured" in html
    stored = json.loads((path.parent / "evaluation.json").read_text())
    assert stored["mean"]["train"] == evaluation.mean("train") and len(stored["frames"]) == 8
    assert stored["by_camera"]["novel_view"]["1"]["ssim"] == evaluation.mean("novel_view")["ssim"]
