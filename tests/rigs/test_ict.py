"""ICT-FaceKit from the packed npz; needs the test data."""

from __future__ import annotations

import json

import pytest
import torch

from gafcore.rigs import REGION_NAMES, load_rig
from gafcore.rigs.ict import arkit_name


def test_parts_and_units(ict):
    assert ict.n_vertices == 24591
    assert (ict.n_shape, ict.n_expr) == (100, 57)
    assert ict.shape_basis.is_contiguous()
    assert ict.expr_basis.is_contiguous()
    extent = ict.template.amax(0) - ict.template.amin(0)
    assert 0.2 < float(extent[0]) < 0.3
    assert 0.3 < float(extent[1]) < 0.4
    with_lashes = load_rig({**ict.spec, "parts": [*ict.spec["parts"], "eyelashes"]})
    assert with_lashes.n_vertices == ict.n_vertices + 1368
    only_skin = load_rig({**ict.spec, "parts": ["face", "head"]})
    assert only_skin.n_vertices == 11248
    assert 460 < len(only_skin.landmarks["mediapipe"].indices) <= 468  # the irises have no eyeballs to lie on
    torch.testing.assert_close(only_skin.vertices(only_skin.neutral())[0], ict.template[:11248], rtol=0, atol=1e-6)


def test_arkit_names(ict):
    assert arkit_name("browDown_L") == "browDownLeft"
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUpLeft", "cheekPuffRight", "mouthPucker"} <= set(ict.expression_names)


def test_landmarks_are_its_own_68(ict, test_data):
    vertices = json.loads(test_data("rig/ict/vertex_indices.json").read_text())["idx_to_landmark_verts"]
    points = ict.landmark_points(ict.template[None], "ibug68")[0]
    torch.testing.assert_close(points, ict.template[vertices], rtol=0, atol=1e-7)


def test_mediapipe_agrees_with_ibug68(ict):
    """Both sets name the corners of eyes and mouth, the tip of the nose and the chin."""
    mediapipe = ict.landmark_points(ict.template[None], "mediapipe")[0]
    ibug = ict.landmark_points(ict.template[None], "ibug68")[0]
    pairs = {33: 36, 133: 39, 362: 42, 263: 45, 61: 48, 291: 54, 4: 30, 152: 8, 13: 62, 14: 66, 168: 27}
    distance = (mediapipe[list(pairs)] - ibug[list(pairs.values())]).norm(dim=-1)
    assert float(distance.median()) < 0.004
    assert float(distance.max()) < 0.012
    eyes = ict.joint_positions(ict.neutral())[0, 3:]
    assert float((mediapipe[[473, 468], :2] - eyes[:, :2]).norm(dim=-1).max()) < 0.002  # iris centres: left, right
    spread = ict.landmark_spread["mediapipe"]
    assert float(spread[:468].median()) < 0.0025
    assert float(spread.max()) < 0.012


def test_gaze_turns_only_the_eyeball(ict):
    params = ict.neutral()
    params.eyes_pose[0, 4] = 0.5
    moved = (ict.vertices(params)[0] - ict.template).norm(dim=-1) > 1e-5
    assert moved[ict.regions["right_eye"]].float().mean() > 0.95
    assert not moved[~ict.regions["right_eye"]].any()
    centre = ict.joint_positions(params)[0, 4]
    torch.testing.assert_close(centre, torch.tensor([-0.032, 0.0362, 0.0644]), rtol=0, atol=1e-5)


def test_neck_moves_the_head_and_leaves_the_shoulders(ict):
    params = ict.neutral()
    params.neck_pose[0, 1] = 0.4
    moved = (ict.vertices(params)[0] - ict.template).norm(dim=-1)
    assert float(moved[ict.template[:, 1] < -0.16].max()) < 1e-4
    assert float(moved[ict.regions["nose"]].min()) > 0.02
    weights = ict.skin_weights
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    edges = torch.cat([ict.faces[:, [0, 1]], ict.faces[:, [1, 2]]])
    assert float((weights[edges[:, 0], 1] - weights[edges[:, 1], 1]).abs().max()) < 0.25  # smooth over the skin


def test_jaw_is_a_shape(ict):
    assert float(ict.skin_weights[:, 2].abs().max()) == 0
    params = ict.neutral()
    params.expr[0, ict.expression_names.index("jawOpen")] = 1
    vertices = ict.vertices(params)
    points = ict.landmark_points(vertices, "ibug68")[0]
    assert float(points[62, 1] - points[66, 1]) > 0.02


def test_uvs_are_an_atlas(ict):
    assert float(ict.uvs.min()) >= 0
    assert float(ict.uvs.max()) <= 1
    corners = ict.uvs[ict.uv_faces]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs() / 2
    face = ict.regions["face"][ict.faces].all(1)
    assert float(area[face].sum()) > 0.2
    assert float(area.sum()) < 1.0


def test_regions(ict):
    assert tuple(ict.regions) == REGION_NAMES
    assert all(int(mask.sum()) > 100 for mask in ict.regions.values())
    exclusive = torch.stack([ict.regions[k] for k in ("face", "scalp", "neck", "ears", "eyes", "mouth")]).sum(0)
    assert int(exclusive.max()) <= 2
    assert float((exclusive == 1).float().mean()) > 0.9


@pytest.mark.parametrize("name", ["ibug68", "mediapipe"])
def test_posed_landmarks(ict, name):
    params = ict.neutral(2)
    params.expr.uniform_(0, 0.5, generator=torch.Generator().manual_seed(0))
    whole = ict.landmark_points(ict.vertices(params), name)
    torch.testing.assert_close(ict.posed_landmarks(params, name), whole, rtol=0, atol=1e-6)
