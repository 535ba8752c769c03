"""The capture: one camera that sees what the solver saw, pictures on white, splits by yaw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gafcore.captures.video import Clip
from gafcore.tracking.assemble import assemble, split_by_yaw, yaw_degrees
from gafcore.tracking.report import report
from gafcore.tracking.solve import solve
from tests.tracking.toy import picture, toy_detections, toy_motion, toy_rig


class _Grey:
    """A source of grey pictures, darker from frame to frame."""

    def pixels(self, i):
        return np.full((480, 512, 3), 100 - i, np.uint8)


@pytest.fixture(scope="module")
def tracked():
    rig = toy_rig()
    detections = toy_detections(rig, toy_motion(rig, 10), 900.0)
    found = detections.found.clone()
    found[4] = False
    detections = replace(detections, found=found, landmarks=torch.where(found[:, None, None], detections.landmarks, torch.nan))
    solution = solve(detections, rig, focal_px=900.0)
    rig, clip = rig.to(dtype=torch.float32), Clip("grey", 512, 480, detections.times_s.numpy(), 30.0, False, _Grey())
    masks = [np.concatenate([np.full((4, 8), 255), np.zeros((4, 8))]).astype(np.uint8)] * 10
    return rig, detections, solution, assemble(clip, detections, rig, solution, masks)


def test_the_camera_sees_what_the_solver_saw(tracked):
    rig, _, solution, capture = tracked
    camera = capture.frames[0].camera
    points = rig.vertices(capture.params) @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixels = points @ camera.K.T
    torch.testing.assert_close(
        pixels[..., :2] / pixels[..., 2:], picture(rig.vertices(solution.params), 900.0, 512, 480), rtol=0, atol=1e-2
    )
    torch.testing.assert_close(capture.params.translation.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(camera.viewmat[:3, :3]), torch.tensor(1.0))


def test_pictures_are_composited_on_white(tracked):
    *_, capture = tracked
    image, mask = capture.frames[2].image(), capture.frames[2].mask()
    assert image.shape == (480, 512, 3)
    assert mask.shape == (480, 512)
    torch.testing.assert_close(image[0, 0], torch.full((3,), 98 / 255))
    torch.testing.assert_close(image[-1, -1], torch.ones(3))


def test_missed_frames_train_nothing(tracked):
    *_, capture = tracked
    assert capture.splits == {"train": (0, 1, 2, 3, 5, 6, 7, 8, 9)}
    assert capture.info["missed_frames"] == [4]


def test_split_by_yaw():
    params = toy_motion(toy_rig(), 7)
    yaw = torch.tensor([-20.0, -8.0, -4.0, 0.0, 5.0, 9.0, 12.0])
    zero = torch.zeros(7)
    params = replace(params, rotation=torch.stack([zero, torch.deg2rad(yaw), zero], 1), neck_pose=torch.zeros(7, 3))
    torch.testing.assert_close(yaw_degrees(params), yaw)
    found = torch.ones(7, dtype=torch.bool)
    assert split_by_yaw(params, found) == {"train": (2, 3, 4), "test": (0, 6)}
    found[3] = False
    assert split_by_yaw(params, found)["train"] == (1, 2)  # the median of what was found is now -4 degrees


def test_report_is_json_and_counts(tracked):
    import json

    _, detections, solution, _ = tracked
    got = report(detections, solution, {"solve": 0.5})
    json.dumps(got, allow_nan=False)
    assert (got["frames"], got["detected_frames"], got["missed_frames"]) == (10, 9, [4])
    assert got["focal_is"] == "given"
    assert got["focal_sigma_px"] is None
    assert got["ms_a_frame"] == {"solve": 50.0}
    known = solution.errors_px[:, solution.held_out][detections.found]
    assert got["held_out_landmarks"]["median_px"] == pytest.approx(float(known.median()), abs=2e-3)
