"""MediaPipe and the whole flow on real pictures. Skips where the test data or MediaPipe is absent."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gafcore.captures import vhap, video
from gafcore.errors import InputError, MissingError
from gafcore.rigs import load_rig
from gafcore.tracking import TrackConfig, detect, find_models, track, track_to_folder

pytest.importorskip("mediapipe", reason="tracking needs mediapipe: pip install 'gafcore[track]'")


@pytest.fixture(scope="module")
def setting(test_data):
    models = test_data("models/face_landmarker.task").parent
    return TrackConfig(rig=f"ict:{test_data('rig/ict/ict_facekit_light_f16.npz')}", models=models)


def test_a_portrait_becomes_a_capture(test_data, setting, tmp_path):
    tracked = track_to_folder(test_data("portraits/astronaut.png"), tmp_path / "out", setting)
    assert tracked.report["detected_frames"] == 1
    assert tracked.report["held_out_landmarks"]["median_px"] < 1.0
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == tracked.report
    assert (tmp_path / "out" / "overlay.png").is_file()
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    capture = vhap.read(tmp_path / "out")
    assert capture.splits["train"] == (0,)
    np.testing.assert_allclose(capture.params.shape, tracked.capture.params.shape, atol=1e-6)
    mask = capture.frames[0].mask()
    assert mask[120, 225] == 1  # the face
    assert mask[400:].max() == 0  # the space suit
    assert track_to_folder(test_data("portraits/astronaut.png"), tmp_path / "out", setting).report["detected_frames"] == 1  # in place
    assert (capture.frames[0].image()[450] == 1).all()


def test_the_matte_is_a_stage_that_can_be_left_out(test_data, setting, monkeypatch):
    clip, rig = video.read(test_data("portraits/astronaut.png")), load_rig(setting.rig)
    with_matte = track(clip, rig, setting, reading_s=1.0)
    stages = with_matte.report["ms_a_frame"]
    assert stages["matte"] > 0
    counted = sum(stages.get(stage, 0) for stage in ("read", "detect", "solve", "refine", "head mask", "matte"))
    assert stages["total"] == pytest.approx(counted, abs=0.05)

    def absent():
        raise MissingError("no OpenCV")

    for stage in ("matte", "keypoints"):
        monkeypatch.setattr(f"gafcore.tracking.{stage}.import_opencv", absent)
    without = track(clip, rig, replace(setting, matte=False, refine=False))
    assert "matte" not in without.report["ms_a_frame"]
    change = (with_matte.capture.frames[0].mask() - without.capture.frames[0].mask()).abs().mean()
    assert 0.001 < change < 0.02  # short hair before a plain wall: little to do


def test_a_turning_head_at_low_resolution(test_data, setting):
    clip = video.read(test_data("clips/turning_lowres.gif"), max_frames=8)
    tracked = track(clip, load_rig(setting.rig), setting)
    assert tracked.report["detected_frames"] == 8
    assert tracked.report["held_out_landmarks"]["median_px"] < 0.8
    assert tracked.report["yaw_deg"][1] - tracked.report["yaw_deg"][0] > 5
    assert not tracked.report["cuts"]


def test_frames_without_a_face_are_marked_and_bridged(test_data, setting, tmp_path):
    """A folder of odd-sized pictures with an alpha channel; nobody in the first two and the fourth, two people in the last."""
    face = Image.open(test_data("portraits/astronaut.png")).convert("RGBA").crop((100, 0, 351, 251))
    empty = Image.new("RGBA", face.size, (90, 120, 90, 255))
    two = face.copy()
    small = face.resize((120, 120)).crop((25, 0, 95, 95))
    two.paste(small, (181, 150))
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate((empty, empty, face, empty, face, two)):
        picture.save(folder / f"{i}.png")
    tracked = track(video.read(folder), load_rig(setting.rig), setting)
    assert tracked.report["missed_frames"] == [0, 1, 3]
    assert tracked.capture.splits["train"] == (2, 4, 5)
    rotation = tracked.capture.params.rotation
    assert (rotation[3] - (rotation[2] + rotation[4]) / 2).abs().max() < 0.02
    assert (rotation[0] - rotation[2]).abs().max() < 0.02
    assert tracked.capture.frames[0].image().shape == (251, 251, 3)


def test_no_face_at_all_is_refused_by_name(test_data, setting, tmp_path):
    Image.new("RGB", (64, 48), (90, 120, 90)).save(tmp_path / "wall.png")
    models = find_models(setting.models)
    with pytest.raises(InputError, match=r"wall\.png: no face found in any of 1 frames of 64x48"):
        detect(video.read(tmp_path / "wall.png"), models)


def test_a_rig_without_landmarks_is_refused(test_data, setting):
    rig = replace(load_rig(setting.rig), landmarks={})
    with pytest.raises(InputError, match="has no mediapipe landmarks"):
        track(video.read(test_data("portraits/astronaut.png")), rig, setting)
