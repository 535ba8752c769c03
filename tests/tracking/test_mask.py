"""The head's mask keeps hair and loses torso and bystanders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gafcore.tracking.mask import face_outline, frame_limits, full_size, neck_ring
from tests.tracking.toy import toy_rig

RING = np.array([[40, 70], [50, 76], [60, 70], [50, 66]], float)  # the neck's base: lower in front
OUTLINE = np.array([[38, 30], [62, 30], [62, 55], [38, 55]], float)


def _mask(person, outline):
    return frame_limits(person, RING, outline).apply(person)


def _person():
    person = np.zeros((100, 100), np.uint8)
    person[10:70, 30:70] = 255  # head and hair
    person[70:100, 10:90] = 255  # torso
    return person


def test_torso_is_removed_and_hair_kept():
    mask = _mask(_person(), OUTLINE)
    assert (mask[10:60, 30:70] == 255).all()
    assert (mask[80:] == 0).all()
    assert mask[72, 50] == 255  # the neck reaches lower in front ...
    assert mask[74, 20] == 0  # ... than the shoulders beside it


def test_edge_below_the_neck_is_soft():
    column = _mask(_person(), OUTLINE)[:, 50].astype(int)
    assert 0 < column[75] < 255
    assert (np.diff(column[60:]) <= 0).all()


def test_the_face_is_in_the_mask_even_where_no_person_was_seen():
    assert (_mask(np.zeros((100, 100), np.uint8), OUTLINE)[32:54, 40:60] == 255).all()


def test_other_people_are_removed():
    person = _person()
    person[10:80, 85:100] = 255
    assert (_mask(person, OUTLINE)[10:60, 88:] == 0).all()
    assert (_mask(person, None)[10:60, 88:] == 255).all()  # without a face nobody knows who is who


def test_a_strand_of_hair_near_the_head_is_nobody_else():
    person = _person()
    person[40:44, 73:75] = 255  # 8 px of 600, and 4 px from the head
    person[40:44, 96:98] = 255  # as small, but 26 px away: not hair
    mask = _mask(person, OUTLINE)
    assert (mask[40:44, 73:75] == 255).all()
    assert (mask[40:44, 96:98] == 0).all()


def test_outline_is_the_hull_of_the_landmarks():
    points = np.concatenate([np.random.default_rng(0).uniform(0.2, 0.8, (474, 2)), [[0, 0], [1, 0], [1, 1], [0, 1]]])
    assert sorted(map(tuple, face_outline(points).tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_full_size_upsamples_to_unit_range():
    mask = full_size(np.array([[0, 255], [0, 255]], np.uint8), 8, 6)
    assert mask.shape == (6, 8)
    assert mask[:, 0].max() == 0
    assert mask[:, -1].min() == 1


def _bust(shoulders: bool):
    """A neck of radius 5 cm from y = -0.2 to 0, as rings of vertices; with shoulders it widens below y = -0.1."""
    heights, angles = torch.linspace(-0.2, 0, 41), torch.arange(24) * (2 * torch.pi / 24)
    radius = 0.05 + (0.8 * (-0.1 - heights).clamp(min=0) if shoulders else torch.zeros(41))
    rows = [torch.stack([r * angles.cos(), y.expand(24), r * angles.sin()], 1) for y, r in zip(heights, radius, strict=True)]
    rig = toy_rig()
    vertices = torch.cat(rows).double()
    return replace(rig, template=vertices, regions={"neck": torch.ones(len(vertices), dtype=torch.bool)}), vertices


def test_neck_ends_where_it_widens():
    rig, vertices = _bust(shoulders=True)
    ring = vertices[neck_ring(rig)]
    assert len(ring) >= 8
    sides = ring[ring[:, 2].abs() < 0.03]
    assert -0.14 < sides[:, 1].mean() < -0.1
    assert ring[ring[:, 2] > 0.03][:, 1].mean() < ring[ring[:, 2] < -0.03][:, 1].mean()  # lower in front


def test_neck_without_shoulders_ends_at_its_lower_end():
    rig, vertices = _bust(shoulders=False)
    assert vertices[neck_ring(rig)][:, 1].max() < -0.15
