"""Colours carried through a rig against colours painted on it."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.cameras import from_angles
from gafcore.diffusion.small.warp import carry, push_pull
from gafcore.mesh import rasterize
from gafcore.ops import interpolate
from gafcore.rigs import load_rig
from tests.cases.ball import ball


@pytest.fixture(scope="module")
def painted():
    """A ball whose colour is a smooth function of the place, its picture from the front, and a view from 40 degrees."""
    vertices, faces = ball(4)
    colors = 0.5 + 4 * vertices  # 0.1..0.9
    camera = from_angles(0.0, 0.0, 1.0, focal_px=600, width=128, height=128)
    target = from_angles(math.radians(40), 0.2, 1.1, focal_px=300, width=64, height=64)
    raster = rasterize(vertices, faces, [camera])
    color = interpolate(colors, faces, raster.triangle_ids, raster.barycentrics)[0]
    rgba = torch.cat([color, (raster.triangle_ids[0] >= 0).float()[..., None]], -1)
    return vertices, faces, colors, camera, target, rgba


def test_what_both_cameras_see_has_its_own_colour(painted):
    vertices, faces, colors, camera, target, rgba = painted
    carried = carry(rgba, camera, [target], vertices, faces)
    raster = rasterize(vertices, faces, [target])
    truth = interpolate(colors, faces, raster.triangle_ids, raster.barycentrics)
    seen = carried.visibility > 0
    assert 0.3 < float(carried.visibility.sum() / carried.mask.sum()) < 0.9
    assert float((carried.fill - truth)[seen].abs().max()) < 0.02
    assert torch.equal(carried.mask, (raster.triangle_ids >= 0).float())
    assert float(carried.fill[carried.mask == 0].abs().max()) == 0


def test_only_what_faces_the_camera_is_seen(painted):
    """Oracle: on a ball about the origin a point's normal is its direction."""
    vertices, faces, _, camera, target, rgba = painted
    carried = carry(rgba, camera, [target], vertices, faces)
    raster = rasterize(vertices, faces, [target])
    points = interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics)
    towards = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 1.0]) - points, dim=-1)
    facing = (torch.nn.functional.normalize(points, dim=-1) * towards).sum(-1)
    on_ball = carried.mask > 0
    assert not bool((carried.visibility > 0)[on_ball & (facing < 0.13)].any())
    assert float(carried.visibility[on_ball & (facing > 0.25)].mean()) > 0.99


def test_a_point_behind_another_surface_is_not_seen(painted):
    """A small ball before the large one casts its shadow on what is carried."""
    vertices, faces, _, camera, _, rgba = painted
    both = torch.cat([vertices, 0.3 * vertices + torch.tensor([0.0, 0.0, 0.3])])
    side = from_angles(math.radians(50), 0.0, 1.1, focal_px=300, width=64, height=64)
    hidden = carry(rgba, camera, [side], both, torch.cat([faces, faces + len(vertices)]))
    open_ = carry(rgba, camera, [side], vertices, faces)
    assert float(hidden.visibility.sum()) < float(open_.visibility.sum()) - 20


def test_pixels_that_are_not_opaque_are_not_carried(painted):
    vertices, faces, _, camera, target, rgba = painted
    thin = carry(0.5 * rgba, camera, [target], vertices, faces)
    assert float(thin.visibility.sum()) == 0


def test_with_a_rig_what_is_hidden_comes_from_the_mirror_image_or_the_same_region():
    """A head whose scalp is red and whose rest is green, but for a blue left ear: seen from its left, the right ear is blue too."""
    rig = load_rig("procedural")
    paint = torch.tensor([0.0, 1.0, 0.0]).repeat(rig.n_vertices, 1)
    paint[rig.regions["scalp"]] = torch.tensor([1.0, 0.0, 0.0])
    ears = rig.regions["ears"]
    paint[ears & (rig.template[:, 0] > 0)] = torch.tensor([0.0, 0.0, 1.0])
    left, right, behind = (from_angles(math.radians(a), 0.0, 1.0, focal_px=400, width=128, height=128) for a in (80, -80, 180))
    raster = rasterize(rig.template, rig.faces, [left])
    color = interpolate(paint, rig.faces, raster.triangle_ids, raster.barycentrics)[0]
    rgba = torch.cat([color, (raster.triangle_ids[0] >= 0).float()[..., None]], -1)
    carried = carry(rgba, left, [right, behind], rig.template, rig.faces, rig=rig)
    shown = rasterize(rig.template, rig.faces, [right, behind])
    weight = interpolate(torch.stack([ears, rig.regions["scalp"]], -1).float(), rig.faces, shown.triangle_ids, shown.barycentrics) > 0.99
    hidden = carried.visibility == 0
    ear, scalp = carried.fill[0][weight[0, ..., 0]], carried.fill[1][weight[1, ..., 1] & hidden[1]]
    assert len(ear) > 50 and len(scalp) > 500
    assert float(ear.mean(0)[2]) > 0.8 and float(scalp[:, 0].mean()) > 0.95


def test_push_pull_keeps_what_is_known_and_fills_with_what_is_near():
    color, weight = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16)
    weight[0, :4], color[0, :4] = 1, torch.tensor([1.0, 0.5, 0.0])
    weight[0, 12:], color[0, 12:] = 1, torch.tensor([0.0, 0.5, 1.0])
    filled = push_pull(color, weight)
    torch.testing.assert_close(filled[weight > 0], color[weight > 0])
    torch.testing.assert_close(filled[..., 1], torch.full((1, 16, 16), 0.5))
    assert bool((filled[0, 5, :, 0] > 0.6).all()) and bool((filled[0, 10, :, 0] < 0.4).all())


def test_push_pull_of_one_known_pixel_paints_everything():
    color, weight = torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8)
    weight[0, 2, 5], color[0, 2, 5] = 1, torch.tensor([0.2, 0.4, 0.6])
    torch.testing.assert_close(push_pull(color, weight), torch.tensor([0.2, 0.4, 0.6]).expand(1, 8, 8, 3))


def test_push_pull_of_nothing_is_black():
    assert float(push_pull(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8)).abs().max()) == 0
