"""Bundle adjustment: exact tracks give the poses back, whatever they were thought to be; on pictures a false nod goes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking import bundle
from gafcore.tracking.bundle import Lens, adjust, adjust_poses
from gafcore.tracking.keypoints import Tracks
from gafcore.tracking.poses import Poses
from gafcore.tracking.solve import solve
from tests.tracking.filmed import FOCAL, FRAMES, NODS, pitch_errors

LENS = Lens(focal_px=900.0, cx=160.0, cy=120.0, face_px=150.0)
N_FRAMES, N_KEYS, N_POINTS = 40, 3, 60


def rigid_tracks(seed=0, off_rig_m=0.0):
    """Points on an egg seen without error from a head that turns about; half of them, the hair, start `off_rig_m` too deep."""
    g = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    points = torch.nn.functional.normalize(random(N_KEYS, N_POINTS, 3), dim=-1) * torch.tensor([0.07, 0.1, 0.09])
    points[..., 2].abs_()
    turn = axis_angle_to_matrix(torch.stack([0.2 * random(N_FRAMES), 0.25 * random(N_FRAMES), 0.1 * random(N_FRAMES)], 1))
    poses = Poses(turn, torch.tensor([0.0, 0.0, -0.8]) + 0.01 * random(N_FRAMES, 3))
    near = torch.stack([torch.randperm(N_KEYS, generator=g)[:2] for _ in range(N_FRAMES)])
    x, y, z = poses.place(points[near].flatten(1, 2)).unflatten(1, (2, N_POINTS)).unbind(-1)
    pixels = torch.stack([LENS.cx - LENS.focal_px * x / z, LENS.cy + LENS.focal_px * y / z], -1)
    skin = torch.zeros(N_KEYS, N_POINTS, dtype=torch.bool)
    skin[:, ::2] = True
    start = points.clone()
    start[~skin] -= torch.tensor([0.0, 0.0, off_rig_m])
    return Tracks(near, pixels, torch.ones(pixels.shape[:3], dtype=torch.bool), start, skin), poses


def disturbed(poses, seed=1):
    g = torch.Generator().manual_seed(seed)
    step = torch.randn(len(poses), 6, generator=g, dtype=torch.float64) * torch.tensor([0.017, 0.017, 0.01, 0.002, 0.002, 0.01])
    return poses.moved(step, poses.shift)


def angles_deg(a, b):
    cosine = ((a.turn * b.turn).sum((1, 2)) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))


def test_exact_tracks_give_the_poses_back():
    tracks, truth = rigid_tracks()
    wrong = disturbed(truth)
    after = adjust_poses(tracks, wrong, LENS)
    before_deg, after_deg = angles_deg(wrong, truth), angles_deg(after, truth)
    assert float(before_deg.median()) > 1.0
    assert float(after_deg.max()) < 0.3 and float(after_deg.median()) < 0.15, after_deg
    assert float((after.shift - truth.shift)[:, :2].abs().max()) < 0.5e-3


def test_hair_that_the_rig_puts_too_deep_is_found_where_it_is():
    tracks, truth = rigid_tracks(off_rig_m=0.015)
    after = adjust_poses(tracks, disturbed(truth), LENS)
    assert float(angles_deg(after, truth).median()) < 0.3


def test_a_fifth_of_wild_points_hardly_matters():
    tracks, truth = rigid_tracks()
    g = torch.Generator().manual_seed(5)
    wild = torch.rand(tracks.seen.shape, generator=g) < 0.2
    pixels = torch.where(wild[..., None], tracks.pixels + 12 * torch.randn(tracks.pixels.shape, generator=g).double(), tracks.pixels)
    after = adjust_poses(replace(tracks, pixels=pixels), disturbed(truth), LENS)
    assert float(angles_deg(after, truth).median()) < 0.3


def test_frames_that_show_no_point_stay():
    tracks, truth = rigid_tracks()
    wrong = disturbed(truth)
    tracks.seen[7] = False
    after = adjust_poses(tracks, wrong, LENS)
    assert torch.allclose(after.turn[7], wrong.turn[7]) and torch.allclose(after.shift[7], wrong.shift[7])
    assert float(angles_deg(after, truth)[8]) < 0.3


def test_chunks_do_not_matter(monkeypatch):
    tracks, truth = rigid_tracks()
    whole = adjust_poses(tracks, disturbed(truth), LENS)
    monkeypatch.setattr(bundle, "_CHUNK", 7)
    parts = adjust_poses(tracks, disturbed(truth), LENS)
    assert torch.allclose(whole.turn, parts.turn, atol=1e-9) and torch.allclose(whole.shift, parts.shift, atol=1e-9)


def test_a_false_nod_is_taken_back(nodding):
    """Also one about the neck, which moves the landmarks by millimetres: points are looked for further away than that."""
    rig, clip, motion, detections = nodding
    before = solve(detections, rig, focal_px=FOCAL)
    after = adjust(clip, detections, rig, before)
    wrong, left = pitch_errors(before.params, motion), pitch_errors(after.params, motion)
    assert float(wrong[NODS].min()) > 1.2  # degrees: the rest the landmark fit explains by expressions
    assert float(left[NODS].abs().max()) < 0.35 * float(wrong[NODS].min()), (wrong, left)
    others = [t for t in range(FRAMES) if t not in NODS]
    assert float(left[others].abs().max()) < 0.5, left
    assert after.focal_px == before.focal_px and after.steps[1] > before.steps[1]


def test_shots_of_a_few_frames_are_left_alone(nodding):
    rig, clip, _, detections = nodding
    detections = replace(detections, cuts=tuple(range(1, FRAMES)))
    before = solve(detections, rig, focal_px=FOCAL)
    assert adjust(clip, detections, rig, before) is before


def test_frames_without_a_face_follow_their_adjusted_neighbours(nodding):
    """Frame 2 nods, by its landmarks; frame 3, which is bridged, must not keep a nod that frame 2 loses."""
    rig, clip, motion, detections = nodding
    found = torch.ones(FRAMES, dtype=torch.bool)
    found[3] = False
    landmarks = detections.landmarks.clone()
    landmarks[3] = np.nan
    gap = replace(detections, found=found, landmarks=landmarks)
    before = solve(gap, rig, focal_px=FOCAL)
    after = adjust(clip, gap, rig, before)
    wrong, left = pitch_errors(before.params, motion), pitch_errors(after.params, motion)
    assert float(wrong[3]) > 0.5
    assert float(left[2:5].min()) - 0.3 < float(left[3]) < float(left[2:5].max()) + 0.3 and abs(float(left[3])) < 0.6, left
    assert bool(after.errors_px[3].isnan().all())


def test_a_short_shot_beside_a_long_one_is_left_to_its_landmarks(nodding):
    rig, clip, _, detections = nodding
    shots = replace(detections, cuts=(6,))
    before = solve(shots, rig, focal_px=FOCAL)
    after = adjust(clip, shots, rig, before)
    moved = (after.params.rotation - before.params.rotation).norm(dim=1)
    assert float(moved[NODS].min()) > math.radians(0.4) and float(moved[NODS].max()) > math.radians(0.7)
    assert float(moved[6:].max()) < math.radians(0.4)  # only by the identity that changed


def test_no_point_at_all_changes_nothing(nodding):
    rig, clip, _, detections = nodding
    nobody = replace(detections, person=torch.zeros_like(detections.person))
    before = solve(nobody, rig, focal_px=FOCAL)
    assert adjust(clip, nobody, rig, before) is before


def test_a_rig_without_a_face_is_left_alone(nodding):
    rig, clip, _, detections = nodding
    before = solve(detections, rig, focal_px=FOCAL)
    faceless = replace(rig, regions={k: v for k, v in rig.regions.items() if k != "face"})
    assert adjust(clip, detections, faceless, before) is before


def test_same_bits_at_any_thread_count(nodding, monkeypatch):
    rig, clip, _, detections = nodding
    monkeypatch.setattr(bundle, "_CHUNK", 2)
    monkeypatch.setattr("gafcore.tracking.least_squares._CHUNK", 2)
    before = solve(detections, rig, focal_px=FOCAL)
    threads, results = torch.get_num_threads(), []
    cv2 = pytest.importorskip("cv2", reason="points are followed by OpenCV: pip install 'gafcore[track]'")
    opencv_threads = cv2.getNumThreads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            cv2.setNumThreads(n)
            monkeypatch.setattr("os.cpu_count", lambda n=n: n)
            results.append(adjust(clip, detections, rig, before))
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv_threads)
    for name, x in results[0].params.items():
        assert x is None or torch.equal(x, getattr(results[1].params, name)), name
    assert torch.equal(results[0].errors_px, results[1].errors_px) and torch.equal(results[0].shared, results[1].shared)
