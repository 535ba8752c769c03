"""The built-in head: what makes it usable as a head. How it looks is docs/images/rig_procedural.png."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gafcore.rigs import JOINT_NAMES, REGION_NAMES

SIDED = (
    "eyeBlink", "eyeWide", "eyeSquint", "eyeLookUp", "eyeLookDown", "mouthSmile", "mouthFrown", "mouthUpperUp", "mouthLowerDown",
    "mouthStretch", "mouthDimple", "mouthPress", "browDown", "browOuterUp", "noseSneer", "cheekSquint", "mouth", "jaw",
)  # fmt: skip
MIDDLE = ("jawOpen", "jawForward", "mouthPucker", "mouthFunnel", "mouthClose", "browInnerUp", "cheekPuff")
ARKIT = {*MIDDLE, *(name + side for name in SIDED for side in ("Left", "Right"))}


def moved(rig, **coefficients):
    params = rig.neutral()
    for name, value in coefficients.items():
        params.expr[0, rig.expression_names.index(name)] = value
    return rig.vertices(params)[0]


def test_size_and_modes(procedural):
    assert 5000 <= procedural.n_vertices <= 8000
    assert procedural.n_shape >= 16
    assert set(procedural.expression_names) >= ARKIT
    assert len(set(procedural.expression_names)) == procedural.n_expr
    assert procedural.joint_names == JOINT_NAMES


def test_measures_of_a_head(procedural):
    """Centimetres, in the range of adults (Farkas, 1994)."""
    p = procedural.landmark_points(procedural.template[None], "ibug68")[0] * 100
    template = procedural.template * 100
    skull = template[procedural.regions["scalp"]]
    assert 14 < float(skull[:, 0].max() - skull[:, 0].min()) < 17
    assert 17 < float(template[procedural.regions["scalp"] | procedural.regions["forehead"], 2].max() - skull[:, 2].min()) < 21
    assert 20 < float(template[:, 1].max() - p[8, 1]) < 24
    eyes = procedural.joint_positions(procedural.neutral())[0, 3:] * 100
    assert 5.8 < float(eyes[0, 0] - eyes[1, 0]) < 7
    assert 4.4 < float(p[54, 0] - p[48, 0]) < 6
    assert 2.5 < float(p[45, 0] - p[42, 0]) < 3.5


def test_surface_is_closed_but_for_the_neck(procedural):
    """Every edge is in two triangles, except the rims of neck, buried ears, backs of lids, teeth and tongue; no triangle is degenerate."""
    faces = procedural.faces.numpy()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2
    rim = np.unique(unique[count == 1])
    eyes = procedural.joint_positions(procedural.neutral())[0, 3:]
    behind_lid = torch.cdist(procedural.template, eyes).amin(1) < 0.0125  # where the backs of the lids end, on the eyeball
    visible = (procedural.regions["face"] | procedural.regions["eyes"]) & ~behind_lid
    assert not visible.numpy()[rim].any()
    corners = procedural.template[procedural.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 2
    used = torch.unique(procedural.faces)
    assert len(used) == procedural.n_vertices
    assert (area > 1e-10).float().mean() > 0.99


def test_faces_look_outwards(procedural):
    """Signed volume of the eyeballs and of the whole is positive."""
    for name in ("left_eye", "right_eye"):
        inside = procedural.regions[name][procedural.faces].all(1)
        a, b, c = (
            procedural.template[procedural.faces[inside, k]] - procedural.template[procedural.regions[name]].mean(0) for k in range(3)
        )
        volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
        assert volume == pytest.approx(4 / 3 * np.pi * 0.012**3, rel=0.06)
    front = procedural.regions["forehead"][procedural.faces].all(1)
    a, b, c = (procedural.template[procedural.faces[front, k]] for k in range(3))
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()


def test_symmetric(procedural):
    from scipy.spatial import cKDTree

    template = procedural.template.numpy()
    assert cKDTree(template).query(template * [-1, 1, 1])[0].max() < 1e-6
    left, right = moved(procedural, mouthSmileLeft=1.0).numpy(), moved(procedural, mouthSmileRight=1.0).numpy()
    assert cKDTree(left).query(right * [-1, 1, 1])[0].max() < 1e-5


def test_uvs_do_not_overlap(procedural):
    """Triangles of the texture painted into a fine grid: their areas add up to the area they cover together."""
    uvs = procedural.uvs.numpy()
    assert uvs.min() >= 0
    assert uvs.max() <= 1
    a, b, c = (uvs[procedural.uv_faces[:, k].numpy()] for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    n = 1024
    count = np.zeros((n, n), np.int32)
    for p in np.stack([a, b, c], 1) * n:
        low, high = np.floor(p.min(0)).astype(int), np.ceil(p.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        sides = [(q[0] - o[0]) * (y - o[1]) - (q[1] - o[1]) * (x - o[0]) for o, q in zip(p, np.roll(p, -1, 0), strict=True)]
        inside = np.all(np.stack(sides) > 1e-9, 0) | np.all(np.stack(sides) < -1e-9, 0)
        count[low[1] : high[1], low[0] : high[0]] += inside
    assert (count > 1).mean() < 1e-3
    face = procedural.regions["face"][procedural.faces].all(1).numpy()
    assert area[face].sum() > 0.2  # the face has more than a fifth of the texture


def test_blink_closes_the_eye_and_never_cuts_the_eyeball(procedural):
    eye = procedural.joint_positions(procedural.neutral())[0, 3]
    lids = procedural.regions["eyelids"] & (procedural.template[:, 0] > 0)
    for amount in (0.25, 0.5, 0.75, 1.0):
        vertices = moved(procedural, eyeBlinkLeft=amount)
        assert float((vertices[lids] - eye).norm(dim=-1).min()) > 0.0117
    p = procedural.landmark_points(moved(procedural, eyeBlinkLeft=1.0)[None], "ibug68")[0]
    opened = procedural.landmark_points(procedural.template[None], "ibug68")[0]
    assert float(opened[43, 1] - opened[47, 1]) > 0.007
    assert float(p[43, 1] - p[47, 1]) < 0.0015
    torch.testing.assert_close(p[37], opened[37], rtol=0, atol=1e-4)  # the right eye stays open


def test_jaw_opens_the_mouth(procedural):
    def gap(vertices):
        p = procedural.landmark_points(vertices[None], "ibug68")[0]
        return float(p[62, 1] - p[66, 1])

    assert abs(gap(procedural.template)) < 0.002
    assert gap(moved(procedural, jawOpen=1.0)) > 0.02
    assert gap(moved(procedural, jawOpen=1.0, mouthClose=1.0)) < 0.004
    params = procedural.neutral()
    params.jaw_pose[0, 0] = 0.3
    posed = procedural.vertices(params)[0]
    assert gap(posed) > 0.02
    upper_face = procedural.regions["forehead"] | procedural.regions["eyes"]
    torch.testing.assert_close(posed[upper_face], procedural.template[upper_face], rtol=0, atol=1e-6)


def test_smile_lifts_its_corner(procedural):
    before = procedural.landmark_points(procedural.template[None], "ibug68")[0]
    after = procedural.landmark_points(moved(procedural, mouthSmileLeft=1.0)[None], "ibug68")[0]
    assert float(after[54, 1] - before[54, 1]) > 0.004
    assert abs(float(after[48, 1] - before[48, 1])) < 0.001


def test_expressions_stay_local(procedural):
    away = procedural.regions["scalp"] & (procedural.template[:, 2] < -0.02)
    assert float(procedural.expr_basis[:, away].abs().max()) < 1e-4


def test_modes_are_independent(procedural):
    flat = procedural.shape_basis.flatten(1)
    flat = flat / flat.norm(dim=1, keepdim=True)
    cosine = (flat @ flat.T - torch.eye(len(flat))).abs()
    assert float(cosine.max()) < 0.75
    assert float(torch.linalg.svdvals(flat).min()) > 0.25


def test_random_identities_keep_eyeballs_under_lids(procedural):
    g = torch.Generator().manual_seed(3)
    for _ in range(10):
        params = procedural.neutral()
        params.shape[:] = torch.randn(procedural.n_shape, generator=g)
        vertices = procedural.vertices(params)[0]
        eye = procedural.joint_positions(params)[0, 3]
        lids = procedural.regions["eyelids"] & (procedural.template[:, 0] > 0)
        assert float((vertices[lids] - eye).norm(dim=-1).min()) > 0.0110


def test_regions(procedural):
    assert tuple(procedural.regions) == REGION_NAMES
    assert all(int(mask.sum()) > 20 for mask in procedural.regions.values())
    exclusive = torch.stack([procedural.regions[k] for k in ("face", "scalp", "neck", "ears", "eyes", "mouth")]).sum(0)
    assert int(exclusive.max()) == 1
    assert int(exclusive.min()) == 1


def test_weights_are_convex(procedural):
    torch.testing.assert_close(procedural.skin_weights.sum(1), torch.ones(procedural.n_vertices))
    assert float(procedural.skin_weights.min()) >= 0


def test_joints_are_inside(procedural):
    joints = dict(zip(procedural.joint_names, procedural.joint_positions(procedural.neutral())[0].tolist(), strict=True))
    assert joints["left_eye"][0] == pytest.approx(-joints["right_eye"][0], abs=1e-6)
    assert joints["left_eye"][0] > 0
    assert joints["root"][1] < joints["neck"][1] < joints["jaw"][1] < joints["left_eye"][1]
    assert all(abs(joints[name][0]) < 1e-5 for name in ("root", "neck", "jaw"))


@pytest.mark.parametrize("name", ["ibug68", "mediapipe"])
def test_landmarks_lie_where_they_should(procedural, name):
    embedding = procedural.landmarks[name]
    points = procedural.landmark_points(procedural.template[None], name)[0]
    assert torch.allclose(embedding.barycentrics.sum(1), torch.ones(len(points)))
    corners = procedural.faces[embedding.faces]
    if name == "ibug68":
        mirror = [16, 15, 14, 13, 12, 11, 10, 9, 8]
        torch.testing.assert_close(points[:9] * torch.tensor([-1, 1, 1]), points[mirror], rtol=0, atol=1e-4)
        assert (points[36:42, 0] < 0).all()
        assert (points[42:48, 0] > 0).all()
    else:
        assert len(points) == 478
        assert procedural.regions["eyes"][corners[468:]].all()
        assert procedural.regions["skin"][corners[:468]].all()
        assert (procedural.landmark_spread[name] < 0.015).all()
        assert float((points[468] - points[473])[0]) < -0.05  # the subject's right iris comes first
