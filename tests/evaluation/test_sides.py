from __future__ import annotations

from dataclasses import replace

import pytest

from gafcore.avatars.rigged import init_avatar
from gafcore.evaluation.sides import azimuth_deg, frames_around, side_scores
from tests.cases.ball import ball_capture


def stand_in(capture):
    colors = 0.5 + 4 * capture.rig.template[capture.rig.faces].mean(1)
    return init_avatar(capture.rig, capture.params, colors.clamp(0, 1), opacity=0.5)


def test_each_split_is_measured_on_its_own_frames():
    capture = ball_capture()
    novel = capture.splits["novel_view"]
    split = replace(capture, splits=capture.splits | {"novel_view": novel[:2], "novel_expression": novel[2:]})
    avatar, lpips = stand_in(capture), lambda image, truth: (image - truth).abs().mean((1, 2, 3))
    whole, parts = side_scores(avatar, capture), side_scores(avatar, split, perceptual=lpips)
    assert whole.expression == {} and "lpips" not in whole.novel
    assert (parts.novel["psnr"] + parts.expression["psnr"]) / 2 == pytest.approx(whole.novel["psnr"])
    assert parts.train["psnr"] == whole.train["psnr"] and parts.far == parts.novel  # the camera is 60 degrees to the side
    assert parts.expression["lpips"] == pytest.approx(parts.expression["l1"], rel=1e-5)


def test_frames_around_are_of_one_moment_from_side_to_side():
    capture = ball_capture()
    frames = frames_around(replace(capture, splits={"novel_view": tuple(range(8))}))
    assert [round(azimuth_deg(f.camera)) for f in frames] == [0, 60] and len({f.timestep for f in frames}) == 1
