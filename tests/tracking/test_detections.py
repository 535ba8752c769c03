"""Which face is followed, and where a new shot begins, on made-up detections."""

from __future__ import annotations

import numpy as np
import torch

from gafcore.tracking.detections import Faces, collect, face_boxes, face_jumps, follow, shot_starts

TIMES = np.arange(12) / 30


def _face(x, y, size):
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 2), np.linspace(-0.5, 0.5, 239)), -1).reshape(-1, 2)
    return (grid * size + [x, y]).astype(np.float32)


def _faces(*faces):
    points = np.stack([_face(*f) for f in faces]) if faces else np.zeros((0, 478, 2), np.float32)
    return Faces(points, np.zeros((len(faces), 2), np.float32))


def test_box_of_a_face():
    centres, sizes = face_boxes(_face(50, 60, 20)[None])
    np.testing.assert_allclose(centres, [[50, 60]], atol=1e-4)
    np.testing.assert_allclose(sizes, [20], atol=1e-4)


def test_the_largest_face_is_chosen_and_then_followed():
    """The other face grows larger and changes places in the list; the track stays with its own."""
    frames = [_faces((50, 50, 40), (150, 50, 30)), _faces((151, 50, 50), (52, 50, 40)), _faces((53, 51, 38), (150, 50, 60))]
    assert follow(frames, TIMES[:3], []).tolist() == [0, 1, 0]


def test_another_person_does_not_fill_a_short_gap():
    frames = [_faces((50, 50, 40)), _faces((250, 50, 40)), _faces((51, 50, 40))]
    assert follow(frames, TIMES[:3], []).tolist() == [0, -1, 0]


def test_after_a_long_gap_any_face_may_take_over():
    frames = [_faces((50, 50, 40)), _faces(), _faces((250, 50, 40))]
    assert follow(frames, np.array([0.0, 0.3, 0.9]), []).tolist() == [0, -1, 0]


def test_after_a_cut_the_largest_face_counts_again():
    frames = [_faces((50, 50, 40)), _faces((50, 50, 20), (200, 50, 60))]
    assert follow(frames, TIMES[:2], [1]).tolist() == [0, 1]


def test_a_cut_is_a_lasting_change_of_the_picture():
    thumbnails = np.full((12, 32, 32, 3), 60, np.uint8)
    thumbnails[7:] = 140
    assert shot_starts(thumbnails) == [7]
    noise = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    assert shot_starts(noise) == []  # always changing is not a cut
    assert shot_starts(thumbnails[:1]) == []


def test_a_jump_of_the_face_is_a_cut():
    landmarks = np.stack([_face(50 + t, 50, 40) for t in range(6)])
    landmarks[4:] += [80, 0]
    found = np.ones(6, bool)
    assert face_jumps(landmarks, found) == [4]
    found[3] = False
    assert face_jumps(landmarks, found) == []


def test_another_face_after_a_gap_is_a_cut():
    frames = [_faces((50, 50, 40)), _faces((51, 50, 40)), _faces(), _faces(), _faces((250, 50, 40)), _faces((250, 50, 40))]
    times = np.array([0.0, 0.1, 0.2, 0.7, 0.9, 1.0])
    thumbnails = np.zeros((6, 32, 32, 3), np.uint8)
    got = collect(frames, ("a", "b"), np.zeros((6, 4, 4), np.uint8), thumbnails, times, (300, 80))
    assert got.found.tolist() == [True, True, False, False, True, True]
    assert got.cuts == (4,)
    frames[4:] = [_faces((60, 50, 40))] * 2
    assert collect(frames, ("a", "b"), np.zeros((6, 4, 4), np.uint8), thumbnails, times, (300, 80)).cuts == ()


def test_collect_marks_missed_frames():
    frames = [_faces(), _faces((50, 50, 40), (10, 10, 5)), _faces()]
    got = collect(frames, ("a", "b"), np.zeros((3, 4, 4), np.uint8), np.zeros((3, 32, 32, 3), np.uint8), TIMES[:3], (100, 80))
    assert got.found.tolist() == [False, True, False]
    assert got.n_faces.tolist() == [0, 2, 0]
    assert torch.isnan(got.landmarks[0]).all()
    assert torch.isfinite(got.landmarks[1]).all()
    assert (got.width, got.height, len(got)) == (100, 80, 3)
