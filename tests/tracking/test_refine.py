"""Refinement by texture: landmarks that nod when the head does not are overruled by what the pictures show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gafcore import cameras
from gafcore.captures.synthetic.motion import random_identity
from gafcore.rigs import load_rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import N_LANDMARKS, Detections
from gafcore.tracking.refine import refine
from gafcore.tracking.solve import solve
from tests.reference.tracking_truth import film

SIDE, FRAMES, FOCAL = 288, 8, 900.0
NOD_RAD, NODS = math.radians(2.0), [2, 5]


def detections_of(rig, params, camera, cuts=()) -> Detections:
    """Landmarks exactly where a pinhole sees them; those that the rig does not have lie in the middle of the face."""
    embedding = rig.landmarks["mediapipe"]
    points = rig.posed_landmarks(params, "mediapipe") @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixels = (points @ camera.K.T)[..., :2] / points[..., 2:]
    landmarks = pixels.mean(1, keepdim=True).repeat(1, N_LANDMARKS, 1)
    landmarks[:, embedding.indices] = pixels
    n = len(params)
    return Detections(
        landmarks=landmarks,
        scores=torch.zeros(n, 0),
        score_names=(),
        found=torch.ones(n, dtype=torch.bool),
        n_faces=torch.ones(n, dtype=torch.long),
        person=torch.zeros(n, 8, 8, dtype=torch.uint8),
        cuts=cuts,
        times_s=torch.arange(n) / 5.0,
        width=camera.width,
        height=camera.height,
    )


@pytest.fixture(scope="module")
def nodding():
    """A clip of a head that turns, and detections of the same head with a nod of two degrees in two of the frames.

    As with true detections the landmarks stay about where they are seen: the false nod is one about their mean, not about the neck.
    """
    rig = load_rig("procedural")
    camera = cameras.from_angles(0.0, 0.0, 0.8, focal_px=FOCAL, width=SIDE, height=SIDE)
    motion = rig.neutral(FRAMES)
    motion.rotation[:, 1] = torch.linspace(-0.25, 0.25, FRAMES)
    clip, _ = film(rig, motion, camera, seed=4, fps=5.0, hair="bald", samples=2, page_px=384)
    nod = torch.zeros(FRAMES, 3)
    nod[NODS, 0] = NOD_RAD
    still = replace(motion, shape=random_identity(rig, 4))
    wrong = rotated(still, nod)
    middle = [rig.posed_landmarks(p, "mediapipe").mean(1) for p in (still, wrong)]
    wrong = replace(wrong, translation=wrong.translation + middle[0] - middle[1])
    return rig, clip, motion, detections_of(rig, wrong, camera)


def rotated(params, turn):
    """`params` with each head turned by a further axis-angle."""
    matrix = axis_angle_to_matrix(turn.double()) @ axis_angle_to_matrix(params.rotation.double())
    return replace(params, rotation=torch.from_numpy(Rotation.from_matrix(matrix.numpy()).as_rotvec()).float())


def pitch_errors(params, truth) -> torch.Tensor:
    """Degrees about the picture's horizontal axis, their median taken out: a constant is the identity's, not the pose's."""
    turn = axis_angle_to_matrix(params.rotation.double()) @ axis_angle_to_matrix(truth.rotation.double()).mT
    pitch = torch.rad2deg(torch.atan2(turn[:, 2, 1], turn[:, 2, 2]))
    return pitch - pitch.median()


def test_a_false_nod_is_taken_back(nodding):
    rig, clip, motion, detections = nodding
    before = solve(detections, rig, focal_px=FOCAL)
    after = refine(clip, detections, rig, before)
    wrong, left = pitch_errors(before.params, motion), pitch_errors(after.params, motion)
    assert float(wrong[NODS].min()) > 1.2  # degrees: the rest the landmark fit explains by expressions
    assert float(left[NODS].mean()) < 0.25 * float(wrong[NODS].mean()), (wrong, left)
    others = [t for t in range(FRAMES) if t not in NODS]
    assert float(left[others].abs().max()) < 0.4, left
    assert after.focal_px == before.focal_px and torch.equal(after.params.shape, before.params.shape)


def test_right_poses_stay(nodding):
    rig, clip, motion, detections = nodding
    camera = cameras.from_angles(0.0, 0.0, 0.8, focal_px=FOCAL, width=SIDE, height=SIDE)
    right = detections_of(rig, replace(motion, shape=solve(detections, rig, focal_px=FOCAL).params.shape), camera)
    before = solve(right, rig, focal_px=FOCAL)
    after = refine(clip, right, rig, before)
    assert float(pitch_errors(after.params, motion).std()) < float(pitch_errors(before.params, motion).std()) + 0.25
    assert after.errors_px.shape == before.errors_px.shape and bool(torch.isfinite(after.errors_px).all())


def test_frames_between_cuts_stand_alone(nodding):
    """With every frame a shot of its own there is no texture to compare with: poses stay where the landmarks put them."""
    rig, clip, _, detections = nodding
    detections = replace(detections, cuts=tuple(range(1, FRAMES)))
    before = solve(detections, rig, focal_px=FOCAL)
    after = refine(clip, detections, rig, before)
    moved = (after.params.rotation - before.params.rotation).abs().max()
    assert float(moved) < math.radians(0.3)


def test_frames_without_a_face_are_left_to_their_neighbours(nodding):
    rig, clip, _, detections = nodding
    found = torch.ones(FRAMES, dtype=torch.bool)
    found[3] = False
    landmarks = detections.landmarks.clone()
    landmarks[3] = np.nan
    gap = replace(detections, found=found, landmarks=landmarks)
    after = refine(clip, gap, rig, solve(gap, rig, focal_px=FOCAL))
    assert bool(torch.isfinite(after.params.rotation).all()) and bool(torch.isfinite(after.params.translation).all())
    assert bool(after.errors_px[3].isnan().all())


def test_same_bits_at_any_thread_count(nodding, monkeypatch):
    rig, clip, _, detections = nodding
    before = solve(detections, rig, focal_px=FOCAL)
    threads = torch.get_num_threads()
    monkeypatch.setitem(refine.__globals__, "_BATCH", 3)
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            monkeypatch.setattr("os.cpu_count", lambda n=n: n)
            results.append(refine(clip, detections, rig, before).params)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0].rotation, results[1].rotation) and torch.equal(results[0].expr, results[1].expr)
