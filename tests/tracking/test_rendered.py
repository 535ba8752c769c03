"""The whole flow from a clip to a capture without MediaPipe: rendered pictures of a known head, and a detector that knows its landmarks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gafcore import cameras
from gafcore.captures import synthetic, vhap
from gafcore.captures.synthetic.motion import random_identity
from gafcore.captures.video import Clip
from gafcore.pictures import to_uint8
from gafcore.rigs import load_rig
from gafcore.tracking import TrackConfig, detect, track
from gafcore.tracking.detections import N_LANDMARKS, Faces
from gafcore.tracking.models import ModelFiles
from tests.reference.tracking_truth import Rendered, vertex_errors

SIDE, FRAMES, HIDDEN, FOCAL = 160, 8, 5, 480.0
NOISE_PX = 0.2  # about MediaPipe's own on a face of this size


def _head_in_motion(rig):
    phase = torch.linspace(0, math.pi, FRAMES)
    motion = rig.neutral(FRAMES)
    motion.rotation[:, 1] = 0.35 * phase.cos()
    motion.rotation[:, 0] = 0.1 * phase.sin()
    motion.translation[:, 0] = 0.02 * phase.cos()
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight"):
        motion.expr[:, rig.expression_names.index(name)] = 0.5 * phase.sin() ** 2
    return replace(motion, shape=random_identity(rig, 3))


class _Knowing:
    """Stands in for `Detector`: finds the landmarks of the pictures that it was told of, and nothing in the hidden one."""

    names = ()

    def __init__(self, pictures, landmarks, people):
        self.numbers = {p.tobytes(): i for i, p in enumerate(pictures)}
        self.landmarks, self.people = landmarks, people

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def faces(self, image):
        i = self.numbers[image.tobytes()]
        found = self.landmarks[i : i + 1] if i != HIDDEN else self.landmarks[:0]
        return Faces(found, np.zeros((len(found), 0), np.float32))

    def person(self, image):
        return self.people[self.numbers[image.tobytes()]]


def _landmarks(rig, vertices, camera):
    """[T, 478, 2] px by a pinhole written out here; the points that the rig does not have lie in the middle of the face."""
    embedding = rig.landmarks["mediapipe"]
    points = (vertices[:, rig.faces[embedding.faces]] * embedding.barycentrics[..., None]).sum(2)
    seen = (points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]) @ camera.K.T
    seen = (seen[..., :2] / seen[..., 2:]).numpy()
    noise = np.random.default_rng(1).normal(0, NOISE_PX, seen.shape)
    landmarks = np.repeat(seen.mean(1, keepdims=True), N_LANDMARKS, axis=1)
    landmarks[:, embedding.indices.numpy()] = seen + noise
    return landmarks.astype(np.float32)


@pytest.fixture(scope="module")
def scene():
    rig = load_rig("procedural")
    camera = cameras.from_angles(0.0, 0.0, 1.0, focal_px=FOCAL, width=SIDE, height=SIDE)
    made = synthetic.from_motion(rig, _head_in_motion(rig), [camera], seed=3, hair="bald", samples=1, page_px=256)
    pictures = [to_uint8(frame.image()) for frame in made.capture.frames]
    people = [np.round(255 * frame.mask().numpy()).astype(np.uint8) for frame in made.capture.frames]
    clip = Clip("rendered", SIDE, SIDE, np.arange(FRAMES) / 30, 30.0, False, Rendered(pictures))
    knowing = _Knowing(pictures, _landmarks(rig, made.vertices, camera), people)
    truth = made.vertices @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    return rig, camera, clip, knowing, truth, people


@pytest.fixture(scope="module")
def tracked(scene):
    rig, _, clip, knowing, *_ = scene
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(detect.__globals__, "Detector", lambda *_: knowing)
        return track(clip, rig, TrackConfig(focal=FOCAL, refine=False), models=ModelFiles(Path("none"), Path("none")))


def test_the_mesh_lies_on_the_face(scene, tracked):
    """At 160x160; 0.9 px there is 3 px at 512x512."""
    rig, camera, *_, truth, _ = scene
    errors = vertex_errors(rig, tracked.solution, truth, camera)
    assert errors["face"] < 0.9, errors
    assert errors["face_p95"] < 2.5, errors


def test_the_head_turns_as_it_did(scene, tracked):
    rig = scene[0]
    want = _head_in_motion(rig).rotation
    torch.testing.assert_close(tracked.capture.params.rotation, want, rtol=0, atol=0.05)


def test_the_report_tells_what_happened(tracked):
    report = tracked.report
    assert (report["frames"], report["detected_frames"], report["missed_frames"]) == (FRAMES, FRAMES - 1, [HIDDEN])
    assert report["held_out_landmarks"]["median_px"] == pytest.approx(1.18 * NOISE_PX, rel=0.5)  # of a Rayleigh distribution
    assert report["cuts"] == []
    assert {"detect", "solve", "head mask", "total"} <= set(report["ms_a_frame"])


def test_the_capture_holds_pictures_masks_and_splits(scene, tracked, tmp_path):
    *_, people = scene
    vhap.write(tracked.capture, tmp_path / "capture")
    capture = vhap.read(tmp_path / "capture")
    assert capture.splits == {"train": tuple(i for i in range(FRAMES) if i != HIDDEN)}
    torch.testing.assert_close(capture.params.rotation, tracked.capture.params.rotation)
    for t in (0, 3):
        head, person = capture.frames[t].mask() > 0.5, torch.from_numpy(people[t] > 127)
        assert int((head & ~person).sum()) < 0.005 * int(person.sum())  # the head is part of the person, but for the landmarks' noise
        above = slice(0, SIDE // 2)
        assert int((head[above] ^ person[above]).sum()) < 0.005 * int(person[above].sum())  # and all of it above the chin
        assert bool((capture.frames[t].image()[~(capture.frames[t].mask() > 0)] == 1).all())
