from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars.hair import with_hair
from gafcore.avatars.outline import outline
from gafcore.cameras import from_angles
from gafcore.mesh import mask_map
from gafcore.types import Capture, Frame
from tests.cases.ball import ball_params, ball_rig

CAMERA = from_angles(0.0, 0.0, 1.0, focal_px=800, width=240, height=240)


def hairy_capture(thickness_m: float, lean: float = 0.0) -> Capture:
    """Front views whose masks are the ball with its upper half moved outwards, more on the left than on the right by `lean`."""
    rig = ball_rig()
    height = rig.template[:, 1]
    rig = replace(rig, regions={"scalp": height > 0.0})
    params = ball_params(rig)
    params = replace(params, expr=torch.zeros_like(params.expr))
    outward = torch.nn.functional.normalize(rig.template, dim=-1)
    amount = thickness_m * (1 + lean * outward[:, 0]) * ((height + 0.02) / 0.04).clamp(0, 1)
    frames = []
    for t in range(3):
        moved = replace(params, static_offset=amount[:, None] * outward)[t]
        mask = mask_map(rig.vertices(moved), rig.faces, CAMERA)[0]
        frames.append(Frame(CAMERA, t, 0, lambda m=mask: m[..., None].expand(-1, -1, 3), lambda m=mask: m))
    return Capture(tuple(frames), rig, params, {"train": (0, 1, 2)})


def found_thickness(capture: Capture) -> torch.Tensor:
    params = with_hair(capture, capture.frames)
    return (params.static_offset * torch.nn.functional.normalize(capture.rig.template, dim=-1)).sum(-1)


@pytest.mark.parametrize("thickness_m", [0.01, 0.02])
def test_thickness_is_read_from_the_outline(thickness_m):
    capture = hairy_capture(thickness_m)
    found, points = found_thickness(capture), capture.rig.template
    crown = (points[:, 1] > 0.07) & (points[:, 2].abs() < 0.04)  # on the outline of a front view
    assert float(found[crown].median()) == pytest.approx(thickness_m, abs=0.003)  # a pixel is 1.25 mm
    assert float(found[points[:, 1] < -0.08].abs().max()) < 0.15 * thickness_m


def test_thickness_differs_from_side_to_side():
    capture = hairy_capture(0.015, lean=0.6)
    found, points = found_thickness(capture), capture.rig.template
    shoulder = (points[:, 1] > 0.04) & (points[:, 1] < 0.075) & (points[:, 2].abs() < 0.03)
    left, right = found[shoulder & (points[:, 0] > 0.05)].median(), found[shoulder & (points[:, 0] < -0.05)].median()
    assert float(left - right) > 0.5 * 0.015 * 0.6


def test_bald_heads_stay_bald():
    capture = hairy_capture(0.0)
    assert with_hair(capture, capture.frames) is capture.params


def test_no_masks_or_no_scalp_say_nothing():
    capture = hairy_capture(0.02)
    unmasked = [replace(f, mask=None) for f in capture.frames]
    assert with_hair(capture, unmasked) is capture.params
    plain = replace(capture, rig=replace(capture.rig, regions={}))
    assert with_hair(plain, plain.frames) is plain.params


def test_ears_do_not_move():
    capture = hairy_capture(0.02)
    ears = capture.rig.template[:, 0].abs() > 0.08
    capture = replace(capture, rig=replace(capture.rig, regions={**capture.rig.regions, "ears": ears}))
    assert float(with_hair(capture, capture.frames).static_offset[ears].abs().max()) == 0


def test_gaps_are_signed_distances_along_the_normal():
    rig = ball_rig()
    vertices = rig.vertices(rig.neutral(1))[0]
    ys, xs = torch.meshgrid(torch.arange(240) + 0.5, torch.arange(240) + 0.5, indexing="ij")
    drawn = mask_map(vertices[None], rig.faces, CAMERA)[0]
    radius = (float(drawn.sum()) / torch.pi) ** 0.5
    for change in (-6.0, 9.0):
        disc = ((xs - 120).hypot(ys - 120) < radius + change).float()
        found = outline(vertices, rig.faces, CAMERA, disc, reach_px=30)
        assert float(found.gaps_px.median()) == pytest.approx(change, abs=1.0)
        angle = torch.atan2(found.normals[:, 1], found.normals[:, 0])
        assert float(angle.max() - angle.min()) > 6.0  # all around, outwards
    far = ((xs - 120).hypot(ys - 120) < radius + 50).float()
    assert len(outline(vertices, rig.faces, CAMERA, far, reach_px=30).gaps_px) == 0


def test_a_head_that_leaves_the_picture_reaches_at_least_to_its_border():
    rig = ball_rig()
    camera = replace(CAMERA, K=CAMERA.K.clone())
    camera.K[0, 2] += 30.0
    vertices = rig.vertices(rig.neutral(1))[0]
    found = outline(vertices, rig.faces, camera, torch.ones(240, 240), reach_px=60)
    right = found[(found.normals[:, 0] > 0.99)]
    assert len(right.gaps_px) > 0 and float(right.gaps_px.max()) < 30  # the mask goes on for ever
