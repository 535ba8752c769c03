"""Scores of the small prior."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.cameras import look_at
from gafcore.diffusion.small.agreement import disagreement
from gafcore.diffusion.small.evaluation import evaluate, sets_of
from gafcore.diffusion.small.store import GrowingPeople
from gafcore.mesh import rasterize
from gafcore.ops import interpolate
from tests.cases.meshes import sphere


def test_scores_of_known_errors(people_folder):
    people = GrowingPeople(people_folder, 4).including(3)
    people["angles"][:, :, 0] = [-80, -40, -10, 5, 5, 20, 50, 89]
    off = {"truth": lambda b, s: b.targets, "0.1 off": lambda b, s: b.targets * 0.5 + 0.2}
    scores = evaluate(people, off, background=0.0, at_once=3)
    assert [scores["truth"][b].n_views for b in ((0, 15), (15, 45), (45, 90))] == [12, 8, 12]
    assert scores["truth"][(15, 45)].psnr == pytest.approx(120) and scores["truth"][(45, 90)].sharpness == pytest.approx(1)
    assert scores["0.1 off"][(0, 15)].sharpness == pytest.approx(0.5, abs=1e-3)
    assert evaluate(people, off, background=0.0, at_once=8) == scores


def test_every_view_is_in_one_of_two_sets():
    assert sets_of(2) == [(p, [h, h + 2, h + 4, h + 6]) for p in (0, 1) for h in (0, 1)]


def test_pictures_of_a_painted_mesh_agree_and_others_do_not():
    vertices, faces = sphere()
    vertices = vertices.float()
    cameras = [look_at((math.sin(a), 0.0, math.cos(a)), (0.0, 0.0, 0.0), focal_px=300.0, width=64, height=64) for a in (-0.4, 0.0, 0.4)]
    raster = rasterize(vertices, faces, cameras)
    paint = torch.sin(40 * vertices)
    views = interpolate(paint, faces, raster.triangle_ids, raster.barycentrics).permute(0, 3, 1, 2)
    ones = torch.ones(3, 64, 64)
    total, count = disagreement(views, cameras, vertices, faces, ones)
    other, _ = disagreement(views[[1, 2, 0]], cameras, vertices, faces, ones)
    assert count > 1000 and total / count < 2e-3 < 0.05 < other / count
    assert disagreement(views, cameras, vertices, faces, 0 * ones) == (0.0, 0)
