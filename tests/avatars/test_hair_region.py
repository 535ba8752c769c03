from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars.hair_region import hair_region
from gafcore.rigs import load_rig
from tests.cases.ball import ball_params, ball_rig


@pytest.fixture(scope="module")
def rig():
    return load_rig("procedural")


@pytest.fixture(scope="module")
def region(rig):
    found = hair_region(rig, rig.neutral(1))
    assert found is not None
    return found


def test_no_scalp_no_hair():
    rig = ball_rig()
    assert hair_region(replace(rig, regions={}), ball_params(rig)) is None
    assert hair_region(replace(rig, regions={"scalp": torch.zeros(rig.n_vertices, dtype=torch.bool)}), ball_params(rig)) is None


def test_scalp_and_nape_but_neither_throat_nor_face(rig, region):
    weight = region.direction.norm(dim=-1)
    neck = rig.regions["neck"]
    ahead = rig.template[:, 2] - rig.template[neck, 2].mean()
    assert float(weight[rig.regions["scalp"]].median()) > 0.95
    assert float(weight[neck & (ahead < -0.03)].median()) > 0.9
    throat = neck & (ahead > 0.02) & (rig.template[:, 0].abs() < 0.02)
    assert bool(throat.any()) and float(weight[throat].max()) < 0.01
    assert float(weight[rig.regions["nose"] | rig.regions["lips"] | rig.regions["eyes"]].max()) == 0


def test_directions_point_outwards(rig, region):
    there = region.vertices[region.direction[region.vertices].norm(dim=-1) > 0.5]
    on_neck = there[rig.regions["neck"][there]]
    axis = rig.template[rig.regions["neck"]].mean(0)
    away = (rig.template[on_neck] - axis) * torch.tensor([1.0, 0.0, 1.0])
    assert float(((away * region.direction[on_neck]).sum(-1) > 0).float().mean()) > 0.98
    on_scalp = there[rig.regions["scalp"][there]]
    away = rig.template[on_scalp] - rig.template[rig.regions["scalp"]].mean(0)
    assert float(((away * region.direction[on_scalp]).sum(-1) > 0).float().mean()) > 0.95


def test_offsets_move_the_region_alone(region):
    offset = region.offset(torch.full((len(region.vertices),), 0.02))
    torch.testing.assert_close(offset, 0.02 * region.direction)
    outside = torch.ones(len(offset), dtype=torch.bool)
    outside[region.vertices] = False
    assert float(offset[outside].abs().max()) == 0


def test_edges_join_the_region_both_ways(rig, region):
    assert int(region.edges.max()) < len(region.vertices)
    there, back = {tuple(e) for e in region.edges.tolist()}, {(b, a) for a, b in region.edges.tolist()}
    assert there == back
    a, b = region.vertices[region.edges[0]].tolist()
    assert any({a, b} <= set(f) for f in rig.faces.tolist())
    ends = rig.template[region.vertices[region.edges]]
    assert region.edge_m == pytest.approx(float((ends[:, 0] - ends[:, 1]).norm(dim=-1).mean()), rel=1e-4)


def test_the_scalp_alone(region):
    assert bool((region.on_scalp <= 1.001).all()) and float(region.on_scalp.min()) == 0  # the neck's part
    torch.testing.assert_close(region.scalp.norm(dim=-1)[region.vertices], region.on_scalp, atol=1e-5, rtol=0)
