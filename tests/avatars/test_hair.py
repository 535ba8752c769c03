from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars import init_avatar
from gafcore.avatars.hair import scalp_direction, with_hair
from gafcore.cameras import from_angles
from gafcore.mesh import mask_map
from gafcore.types import Capture, Frame, RigParams
from tests.cases.ball import ball_params, ball_rig


def hairy_capture(thickness_m: float) -> Capture:
    """Front views whose masks are the ball with its upper half moved outwards."""
    rig = ball_rig()
    rig = replace(rig, regions={"scalp": rig.template[:, 1] > 0.0})
    params = ball_params(rig)
    params = replace(params, expr=torch.zeros_like(params.expr))
    direction = scalp_direction(rig, params)
    camera = from_angles(0.0, 0.0, 1.0, focal_px=800, width=240, height=240)
    frames = []
    for t in range(3):
        moved = replace(params, static_offset=thickness_m * direction)[t]
        mask = mask_map(rig.vertices(moved), rig.faces, camera)[0]
        frames.append(Frame(camera, t, 0, lambda m=mask: m[..., None].expand(-1, -1, 3), lambda m=mask: m))
    return Capture(tuple(frames), rig, params, {"train": (0, 1, 2)})


def thin_avatar(capture: Capture):
    discs = torch.tensor([0.25, 0.01, 0.25]).log().expand(capture.rig.faces.shape[0], 3)

    def first(params: RigParams):
        return init_avatar(capture.rig, params, opacity=0.99, log_scales=discs)

    return first


@pytest.mark.parametrize("thickness_m", [0.01, 0.02])
def test_thickness_is_read_from_the_outline(thickness_m):
    capture = hairy_capture(thickness_m)
    params = with_hair(capture, list(capture.frames), thin_avatar(capture))
    found = float(params.static_offset.norm(dim=-1).max())
    assert found == pytest.approx(thickness_m, abs=0.0041)  # the grid is 2.5 mm; discs reach a little past the mesh
    bottom = capture.rig.template[:, 1] < -0.08
    assert float(params.static_offset[bottom].norm(dim=-1).max()) < 0.15 * found  # four rounds of averaging go far on so coarse a ball


def test_bald_heads_stay_bald():
    capture = hairy_capture(0.0)
    assert with_hair(capture, list(capture.frames), thin_avatar(capture)) is capture.params


def test_no_masks_or_no_scalp_say_nothing():
    capture = hairy_capture(0.02)
    unmasked = [replace(f, mask=None) for f in capture.frames]
    assert with_hair(capture, unmasked, thin_avatar(capture)) is capture.params
    plain = replace(capture, rig=replace(capture.rig, regions={}))
    assert with_hair(plain, list(capture.frames), thin_avatar(plain)) is plain.params


def test_the_rim_of_the_scalp_is_a_slope():
    capture = hairy_capture(0.0)
    direction = scalp_direction(capture.rig, capture.params)
    length, height = direction.norm(dim=-1), capture.rig.template[:, 1]
    assert float(length[height > 0.09].min()) > 0.8
    between = length[(height > -0.03) & (height < 0.04)]
    assert bool((between > 0.05).any()) and bool((between < 0.8).all())
