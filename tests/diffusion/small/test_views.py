"""Cameras about the head, and crops of its picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gafcore.cameras import from_angles
from gafcore.diffusion.small.views import HEAD_RADIUS_M, Crop, head_crop, head_pose, view_camera
from gafcore.rigs import load_rig
from gafcore.rigs.skinning import axis_angle_to_matrix


def project(camera, point):
    x, y, w = (camera.K @ (camera.viewmat[:3, :3] @ point + camera.viewmat[:3, 3])).tolist()
    return x / w, y / w, w


@pytest.fixture(scope="module")
def turned():
    """A head turned and moved as a whole: its axes are the rotation itself."""
    rig = load_rig("procedural")
    params = replace(rig.neutral(), rotation=torch.tensor([[0.2, -0.5, 0.1]]), translation=torch.tensor([[0.3, 0.1, -0.2]]))
    return rig, rig.vertices(params)[0], axis_angle_to_matrix(params.rotation)[0]


def test_the_pose_turns_with_the_head(turned):
    rig, vertices, rotation = turned
    pose, still = head_pose(rig, vertices), head_pose(rig, rig.template)
    torch.testing.assert_close(still.axes, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pose.axes, rotation, atol=1e-5, rtol=0)
    moved, rest = vertices[100] - pose.center, rig.template[100] - still.center
    torch.testing.assert_close(rotation.T @ moved, rest, atol=1e-5, rtol=0)


def test_a_rig_without_a_scalp_is_its_whole_mesh(turned):
    rig, vertices, rotation = turned
    pose = head_pose(replace(rig, regions={}), vertices)
    torch.testing.assert_close(pose.axes, rotation, atol=1e-5, rtol=0)


def test_views_look_at_the_middle_from_the_stated_side(turned):
    rig, vertices, rotation = turned
    pose = head_pose(rig, vertices)
    camera = view_camera(pose, math.radians(60), math.radians(20), 1.2, 64)
    x, y, depth = project(camera, pose.center)
    assert (x, y, depth) == pytest.approx((32, 32, 1.2), abs=1e-3)
    eye = rotation.T @ (-camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3] - pose.center)  # in the head's axes
    expected = [1.2 * math.cos(0.34907) * math.sin(1.0472), 1.2 * math.sin(0.34907), 1.2 * math.cos(0.34907) * math.cos(1.0472)]
    assert eye.tolist() == pytest.approx(expected, abs=1e-3)
    _, crown_y, _ = project(camera, pose.center + 0.1 * rotation[:, 1])
    assert crown_y < 20  # up in the picture


def test_the_radius_fills_the_picture_at_the_usual_distance(turned):
    rig, vertices, rotation = turned
    pose = head_pose(rig, vertices)
    x, *_ = project(view_camera(pose, 0.0, 0.0, 1.1, 64), pose.center + HEAD_RADIUS_M * rotation[:, 0])
    assert x == pytest.approx(64, abs=0.01)


def test_a_crop_shows_a_point_where_its_camera_says(turned):
    """A bright dot drawn where the camera sees a point comes out where the crop's camera sees it."""
    rig, vertices, _ = turned
    pose = head_pose(rig, vertices)
    camera = from_angles(0.3, 0.1, 2.0, focal_px=900, width=300, height=200, target=(pose.center + 0.02).tolist())
    point = pose.center + torch.tensor([0.03, 0.02, 0.05])
    x, y, _ = project(camera, point)
    rows, columns = torch.meshgrid(torch.arange(200) + 0.5, torch.arange(300) + 0.5, indexing="ij")
    picture = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)[..., None]
    crop = head_crop(camera, pose, 64)
    cut = crop.cut(picture, torch.zeros(1))[..., 0]
    expected_x, expected_y, _ = project(crop.camera(camera), point)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    assert float((cut * columns).sum() / cut.sum()) == pytest.approx(expected_x, abs=0.1)
    assert float((cut * rows).sum() / cut.sum()) == pytest.approx(expected_y, abs=0.1)


@pytest.mark.parametrize(("left", "top"), [(2, 3), (-4, -2), (7, 5), (40, 0), (-40, -40)])
def test_a_crop_at_full_size_copies_pixels_and_shows_the_outside_beyond_the_edge(left, top):
    picture = torch.rand(9, 11, 2, generator=torch.Generator().manual_seed(0))
    outside = torch.tensor([0.25, 0.75])
    cut = Crop(left, top, 8, 8).cut(picture, outside)
    for row in range(8):
        for column in range(8):
            y, x = top + row, left + column
            want = picture[y, x] if 0 <= y < 9 and 0 <= x < 11 else outside
            torch.testing.assert_close(cut[row, column], want)
