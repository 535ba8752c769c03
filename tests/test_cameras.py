from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from gafcore.cameras import camera_position, from_angles, look_at, resize, stack


def project(camera, point):
    p = camera.viewmat @ torch.tensor([*point, 1.0])
    uvw = camera.K @ p[:3]
    return uvw[:2] / uvw[2], p[2]


def test_look_at_has_opencv_axes():
    camera = look_at((0, 0, 1), (0, 0, 0), focal_px=100, width=60, height=40)
    centre, depth = project(camera, (0, 0, 0))
    assert_close(centre, torch.tensor([30.0, 20.0]))
    assert_close(depth, torch.tensor(1.0))
    right, _ = project(camera, (0.1, 0, 0))  # seen from +z with y up, world +x is to the right
    up, _ = project(camera, (0, 0.1, 0))
    assert_close(right, torch.tensor([40.0, 20.0]))
    assert_close(up, torch.tensor([30.0, 10.0]))


def test_viewmat_is_rigid_and_knows_its_centre():
    camera = from_angles(0.7, -0.3, 1.2, focal_px=100, width=64, height=64, target=(0.1, 0.2, 0.3))
    R = camera.viewmat[:3, :3]
    assert_close(R @ R.T, torch.eye(3))
    assert_close(torch.linalg.det(R), torch.tensor(1.0))
    ring = 1.2 * math.cos(-0.3)
    want = torch.tensor([0.1 + ring * math.sin(0.7), 0.2 + 1.2 * math.sin(-0.3), 0.3 + ring * math.cos(0.7)])
    assert_close(camera_position(camera), want)


def test_look_at_refuses_degenerate_views():
    with pytest.raises(ValueError, match="eye != target"):
        look_at((0, 0, 1), (0, 0, 1), focal_px=1, width=1, height=1)
    with pytest.raises(ValueError, match="not along the line of sight"):
        look_at((0, 1, 0), (0, 0, 0), focal_px=1, width=1, height=1)


def test_resize_keeps_the_field_of_view():
    camera = resize(look_at((0, 0, 1), (0, 0, 0), focal_px=100, width=60, height=40), 120, 60)
    assert_close(camera.K, torch.tensor([[200.0, 0, 60], [0, 150, 30], [0, 0, 1]]))
    assert (camera.width, camera.height) == (120, 60)


def test_stack_wants_one_size():
    a = look_at((0, 0, 1), (0, 0, 0), focal_px=100, width=60, height=40)
    viewmats, Ks = stack([a, a])
    assert viewmats.shape == (2, 4, 4) and Ks.shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"one image size.*\[\(60, 40\), \(120, 40\)\]"):
        stack([a, resize(a, 120, 40)])
    with pytest.raises(ValueError, match="0 cameras"):
        stack([])
