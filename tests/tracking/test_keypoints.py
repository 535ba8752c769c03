"""Points of the head are followed to where they are, and only on the head."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking import models
from gafcore.tracking.keypoints import face_size, follow_points, key_frames
from gafcore.tracking.models import import_opencv
from gafcore.tracking.points import project
from gafcore.tracking.poses import Poses, poses_of
from gafcore.tracking.solve import solve
from tests.tracking.filmed import FOCAL, FRAMES, NODS, SIDE


def turning(angles_deg) -> Poses:
    rotation = torch.zeros(len(angles_deg), 3).double()
    rotation[:, 1] = torch.deg2rad(torch.tensor(angles_deg).double())
    return Poses(axis_angle_to_matrix(rotation), torch.zeros(len(angles_deg), 3).double())


def test_key_frames_are_the_middle_and_then_the_ends():
    assert key_frames(turning([0.0, 10.0, 20.0, 30.0, 40.0]), [0, 1, 2, 3, 4])[:3] == [2, 0, 4]


def test_key_frames_of_like_poses_are_one():
    assert key_frames(turning([5.0, 5.1, 5.2]), [0, 1, 2]) == [1]


def test_key_frames_are_numbers_of_frames():
    assert set(key_frames(turning([0.0, 99.0, 10.0, 20.0]), [0, 2, 3])) == {0, 2, 3}


def test_at_most_twelve_key_frames():
    assert len(key_frames(turning([4.0 * i for i in range(20)]), list(range(20)))) == 12


@pytest.fixture(scope="module")
def followed(nodding):
    rig, clip, _, detections = nodding
    solution = solve(detections, rig, focal_px=FOCAL)
    poses = poses_of(rig, solution.params)
    return rig, clip, detections, solution, poses, follow_points(clip, detections, rig, solution, list(range(FRAMES)), poses)


def test_points_are_where_the_head_moved_them(followed):
    """Except in the frames whose poses are wrong, points are within a pixel of where poses and rig's depth say, and there they are not."""
    _, _, _, solution, poses, tracks = followed
    place = poses.place(tracks.start[tracks.near].flatten(1, 2))
    expected = project(place, torch.tensor(solution.focal_px), (SIDE / 2, SIDE / 2)).unflatten(1, tracks.seen.shape[1:])
    error = (tracks.pixels - expected).norm(dim=-1)
    usable = tracks.seen & tracks.skin[tracks.near]
    right = [t for t in range(FRAMES) if t not in NODS]
    assert float(usable[right].sum((1, 2)).min()) >= 30
    assert float(error[right][usable[right]].median()) < 1.0
    assert float(error[NODS][usable[NODS]].median()) > 2.0  # two degrees about the neck, 14 cm below


def test_a_key_frame_sees_its_own_points_where_they_were_found(followed):
    _, _, _, solution, poses, tracks = followed
    for k, t in enumerate(key_frames(poses, list(range(FRAMES)))):
        place = int(torch.nonzero(tracks.near[t] == k)[0])
        at = project(poses[[t]].place(tracks.start[k][None]), torch.tensor(solution.focal_px), (SIDE / 2, SIDE / 2))[0]
        seen = tracks.seen[t, place]
        assert int(seen.sum()) >= 20
        assert float((tracks.pixels[t, place] - at).norm(dim=-1)[seen].max()) < 0.2


def test_points_off_the_person_are_not_seen(followed):
    rig, clip, detections, solution, poses, tracks = followed
    left_half = detections.person.clone()
    left_half[:, :, left_half.shape[2] // 2 :] = 0
    some = follow_points(clip, replace(detections, person=left_half), rig, solution, list(range(FRAMES)), poses)
    assert bool(some.seen.any()) and float(some.pixels[some.seen][:, 0].max()) <= SIDE / 2 + SIDE / left_half.shape[2]
    assert float(tracks.pixels[tracks.seen][:, 0].max()) > SIDE / 2 + 10


def test_hair_begins_where_the_face_ends(followed):
    """Points that count as hair start on or beside the rig but off its face; those of the skin start within a millimetre of it."""
    rig, _, _, solution, poses, tracks = followed
    frame = key_frames(poses, list(range(FRAMES)))[0]
    posed = rig.vertices(solution.params[frame])[0].double()
    posed = (posed - poses.shift[frame]) @ poses.turn[frame]
    nearest = cKDTree(posed.numpy()).query(tracks.start[0].numpy())[1]
    face = rig.regions["face"].numpy()[nearest]
    skin = tracks.skin[0].numpy()
    assert face[skin].mean() > 0.95 and face[~skin].mean() < 0.2, face[~skin].mean()


def test_size_of_the_face(nodding):
    _, _, _, detections = nodding
    extent = np.ptp(detections.landmarks[0].numpy(), axis=0)
    assert face_size(detections, [0]) == pytest.approx(math.sqrt(extent[0] * extent[1]), rel=1e-5)


def test_without_opencv_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(models.MissingError, match=r"gafcore\[track\]"):
        import_opencv()
