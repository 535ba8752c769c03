from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars import hair, init_avatar, render
from gafcore.avatars.hair import with_hair
from gafcore.avatars.hair_region import hair_region
from gafcore.cameras import from_angles
from gafcore.mesh import mask_map
from gafcore.rigs import load_rig
from gafcore.types import Capture, Frame, RigParams
from tests.cases.ball import ball_params, ball_rig


def capture_of(rig, params, offset, *, turns=(0.0,) * 3, size=240) -> Capture:
    """Views whose masks are the rig with `offset`: one camera a timestep, turned by `turns` (radians)."""
    frames = []
    for t, azimuth in enumerate(turns):
        camera = from_angles(azimuth, 0.0, 1.0, focal_px=2.6 * size, width=size, height=size)
        mask = mask_map(rig.vertices(replace(params, static_offset=offset)[t]), rig.faces, camera)[0]
        frames.append(Frame(camera, t, 0, lambda m=mask: m[..., None].expand(-1, -1, 3), lambda m=mask: m))
    return Capture(tuple(frames), rig, params, {"train": tuple(range(len(turns)))})


def hairy_ball(thickness_m: float) -> Capture:
    """Front views of a ball whose upper half is hair."""
    rig = ball_rig()
    rig = replace(rig, regions={"scalp": rig.template[:, 1] > 0.0})
    params = ball_params(rig)
    params = replace(params, expr=torch.zeros_like(params.expr))
    region = hair_region(rig, params)
    assert region is not None
    return capture_of(rig, params, thickness_m * region.scalp)


def thin_avatar(capture: Capture, radius: float = 0.25):
    discs = torch.tensor([radius, 0.01, radius]).log().expand(capture.rig.faces.shape[0], 3)

    def first(params: RigParams):
        return init_avatar(capture.rig, params, opacity=0.99, log_scales=discs)

    return first


@pytest.fixture
def one_thickness(monkeypatch):
    """The gaps between discs on so coarse a ball would count as hair that one thickness does not explain."""
    monkeypatch.setattr(hair, "_EXPLAINED", 1.0)


@pytest.mark.parametrize("thickness_m", [0.01, 0.02])
def test_thickness_is_read_from_the_outline(thickness_m, one_thickness):
    capture = hairy_ball(thickness_m)
    params = with_hair(capture, list(capture.frames), thin_avatar(capture))
    found = float(params.static_offset.norm(dim=-1).max())
    assert found == pytest.approx(thickness_m, abs=0.0041)  # the grid is 2.5 mm; discs reach a little past the mesh
    bottom = capture.rig.template[:, 1] < -0.08
    assert float(params.static_offset[bottom].norm(dim=-1).max()) < 0.15 * found  # four rounds of averaging go far on so coarse a ball


def test_bald_heads_stay_bald():
    capture = hairy_ball(0.0)
    assert with_hair(capture, list(capture.frames), thin_avatar(capture, 0.5)) is capture.params


def test_no_masks_or_no_scalp_say_nothing():
    capture = hairy_ball(0.02)
    unmasked = [replace(f, mask=None) for f in capture.frames]
    assert with_hair(capture, unmasked, thin_avatar(capture)) is capture.params
    plain = replace(capture, rig=replace(capture.rig, regions={}))
    assert with_hair(plain, list(capture.frames), thin_avatar(plain)) is plain.params


def test_an_empty_mask_says_nothing(one_thickness):
    capture = hairy_ball(0.01)
    empty = replace(capture.frames[0], mask=lambda: torch.zeros(240, 240))
    with_it = with_hair(capture, [empty, *capture.frames[1:]], thin_avatar(capture))
    without = with_hair(capture, list(capture.frames[1:]), thin_avatar(capture))
    assert torch.equal(with_it.static_offset, without.static_offset)


@pytest.fixture(scope="module")
def long_hair():
    """A head turned from side to side, with a curtain of four centimetres beside and behind the neck, and what is made of its masks."""
    rig = load_rig("procedural")
    region = hair_region(rig, rig.neutral(1))
    assert region is not None
    truth = 0.04 * (1 - region.on_scalp) + 0.01 * region.on_scalp
    capture = capture_of(rig, rig.neutral(5), region.offset(truth), turns=(-0.3, -0.15, 0.0, 0.15, 0.3), size=160)
    return capture, region, truth, with_hair(capture, list(capture.frames), thin_avatar(capture, 0.4))


def bare(capture: Capture, params: RigParams) -> float:
    """The part of the masks that the first avatar leaves uncovered."""
    avatar = thin_avatar(capture, 0.4)(params)
    uncovered = sum(torch.relu(f.mask() - render(avatar, [f.camera], params[f.timestep]).alpha[0]).sum() for f in capture.frames)
    return float(uncovered / sum(f.mask().sum() for f in capture.frames))


def test_long_hair_is_found_beside_the_neck(long_hair):
    capture, region, truth, params = long_hair
    rig, length = capture.rig, params.static_offset.norm(dim=-1)
    assert bare(capture, capture.params) > 0.15
    assert bare(capture, params) < 0.03
    neck = rig.regions["neck"]
    beside = neck & (rig.template[:, 2] - rig.template[neck, 2].mean()).abs().lt(0.02) & (region.direction.norm(dim=-1) > 0.95)
    part = float(length[beside].mean() / region.offset(truth).norm(dim=-1)[beside].mean())
    assert 0.5 < part < 1.05  # discs as large as these triangles reach past them
    assert float(length.max()) < 0.0601
    throat = neck & (rig.template[:, 2] - rig.template[neck, 2].mean() > 0.02) & (rig.template[:, 0].abs() < 0.02)
    assert float(length[throat].max()) < 0.001


def test_the_face_does_not_move(long_hair):
    capture, _, _, params = long_hair
    nose = torch.nonzero(capture.rig.regions["nose"])[:, 0]
    moved = capture.rig.vertices(params, nose) - capture.rig.vertices(capture.params, nose)
    assert float(moved.norm(dim=-1).max()) < 1e-5


def test_the_same_every_time(long_hair, monkeypatch):
    monkeypatch.setattr(hair, "_STEPS", 12)
    capture = long_hair[0]
    once, again = (with_hair(capture, list(capture.frames), thin_avatar(capture, 0.4)) for _ in range(2))
    assert torch.equal(again.static_offset, once.static_offset) and torch.equal(again.translation, once.translation)
