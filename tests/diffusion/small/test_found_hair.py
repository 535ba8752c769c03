"""What the training people's rigs wear of their hair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars.hair_region import hair_region
from gafcore.captures.synthetic.look import random_look
from gafcore.diffusion.small.found_hair import found_offset
from gafcore.diffusion.small.people import _LONG_HAIRED, _draw, look_of
from gafcore.rigs import load_rig


@pytest.fixture(scope="module")
def rig():
    return load_rig("procedural")


def offset(rig, style, *, chance=0.0, worse=0.0, length=1.0):
    params = rig.neutral(1)
    return found_offset(rig, params, params, random_look(3, style), 3, length=length, chance=chance, worse=worse)


def test_short_hair_is_one_thickness_of_the_scalp(rig):
    scalp = hair_region(rig, rig.neutral(1)).scalp
    torch.testing.assert_close(offset(rig, "short"), 0.0125 * scalp)
    torch.testing.assert_close(offset(rig, "short", chance=1.0, worse=1.0), (0.0125 + 0.00125 + 0.001) * scalp)
    assert not offset(rig, "bald", chance=-1.0).any()


def test_hanging_hair_is_found_at_the_neck_too(rig):
    region, rest = hair_region(rig, rig.neutral(1)), rig.template
    lower = rig.regions["neck"] & (rest[:, 1] < -0.03) & (rest[:, 1] > -0.09) & (rest[:, 2] < -0.04)
    for style in ("bob", "long"):
        distance = offset(rig, style, length=1.3).norm(dim=-1)
        assert 0.01 < distance[lower].mean() < 0.05 and distance.max() <= 0.06
        assert not distance[region.direction.norm(dim=-1) == 0].any()
    assert offset(rig, "short").norm(dim=-1)[lower].mean() < 0.004  # the scalp's rim


def test_a_share_of_the_people_has_long_hair_and_the_others_are_who_they_were(rig):
    looks = {seed: look_of(seed) for seed in range(400)}
    long = [seed for seed, look in looks.items() if look.hair_style == "long"]
    assert abs(len(long) / 400 - _LONG_HAIRED) < 0.05
    for seed in set(looks) - set(long):
        assert looks[seed].hair_style == random_look(seed).hair_style
    first, again = _draw(rig, long[0]), _draw(rig, long[0])
    assert first.look.hair_style == "long" and torch.equal(first.tracked.static_offset, again.tracked.static_offset)


def test_a_tracked_neck_of_another_shape(rig):
    """Which vertices may wear hair depends on the shape: not the same ones for the person and the tracked rig."""
    truth = rig.neutral(1)
    rng, tracked = torch.Generator().manual_seed(0), []
    for _ in range(6):
        tracked.append(replace(truth, shape=0.5 * torch.randn(truth.shape.shape, generator=rng)))
    assert len({len(hair_region(rig, params).vertices) for params in [truth, *tracked]}) > 1
    plain = offset(rig, "long").norm(dim=-1)
    for params in tracked:
        worn = found_offset(rig, params, truth, random_look(3, "long"), 3, length=1.0, chance=0.0, worse=1.0).norm(dim=-1)
        assert (worn - plain).abs().mean() < 3e-4 and worn.max() > 0.02
