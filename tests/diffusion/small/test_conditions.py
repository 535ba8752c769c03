"""What views show of a picture, and what lies beyond its edge."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from gafcore.cameras import from_angles
from gafcore.diffusion.small.conditions import input_camera, prepare
from gafcore.diffusion.small.views import head_pose, view_camera
from gafcore.mesh import rasterize
from tests.cases.ball import ball_rig

RIG = ball_rig()
CAMERA = from_angles(0.0, 0.0, 1.0, focal_px=200.0, width=96, height=80)
GREY = torch.full((3,), 0.5)


def within(camera, targets):
    rgba = torch.full((camera.height, camera.width, 4), 1.0)
    return prepare(rgba, camera, RIG, RIG.template, targets, GREY).within


def rows_of_the_head(target):
    ids = rasterize(RIG.template, RIG.faces, target).triangle_ids[0]
    return torch.nonzero((ids >= 0).any(1))[:, 0]


def test_a_picture_that_shows_the_whole_rig_leaves_nothing_beyond_its_edge():
    own = input_camera(CAMERA, RIG, RIG.template, 32)
    side = view_camera(head_pose(RIG, RIG.template), math.radians(80), 0.0, 1.0, 32)
    assert within(CAMERA, [own, side]).min() == 1


def test_where_the_picture_ends_on_the_head_what_is_below_lies_beyond():
    """Cut at a row of pixels: in the view from the picture's own camera the edge is a row, too; off the rig, four pixels beside."""
    rows = rows_of_the_head(CAMERA)
    cut = int(rows.float().mean())
    ended = replace(CAMERA, height=cut)
    own = input_camera(ended, RIG, RIG.template, 32)
    found = within(ended, [own])[0]
    edge = (cut - CAMERA.K[1, 2]) / CAMERA.K[1, 1] * own.K[1, 1] + own.K[1, 2]  # of the cut, in the view's pixels
    on_rig = rasterize(RIG.template, RIG.faces, own).triangle_ids[0] >= 0
    below = (torch.arange(32) + 0.5)[:, None] > edge
    assert torch.equal((found == 0) & on_rig, on_rig & below)
    assert 0 < int(((found == 0) & on_rig).sum()) < int(on_rig.sum())
    beside = (found == 0) & ~on_rig
    far = torch.cdist(torch.nonzero(beside).float(), torch.nonzero(on_rig & below).float(), p=torch.inf).amin(1)
    assert far.max() == 4
    side = view_camera(head_pose(RIG, RIG.template), math.radians(80), 0.0, 1.0, 32)
    assert int((within(ended, [side]) == 0).sum()) > 0
