"""The pieces a synthetic capture is made of, each against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.cameras import camera_position
from gafcore.captures.synthetic import nersemble_arc
from gafcore.captures.synthetic.atlas import fill, lay_out, nearest_covered, smooth_over_mesh, texels
from gafcore.captures.synthetic.hair import grow_hair
from gafcore.captures.synthetic.lighting import Light, ambient_occlusion, irradiance, random_light, sh_basis
from gafcore.captures.synthetic.long_hair import Cut, Neck
from gafcore.captures.synthetic.look import color, linear_to_srgb, random_look, srgb_to_linear
from gafcore.captures.synthetic.motion import random_identity, random_motion
from gafcore.captures.synthetic.noise import Noise3, generator, over_time, smoothstep
from gafcore.captures.synthetic.shapes import nearest_on_line, signed_distance_xy
from gafcore.captures.synthetic.skull import Skull, rigid_motion


def sphere_points(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def icosphere(radius: float, rows: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    v, u = torch.meshgrid(torch.linspace(0, math.pi, rows), torch.arange(2 * rows) * (math.pi / rows), indexing="ij")
    points = torch.stack([v.sin() * u.sin(), v.cos(), v.sin() * u.cos()], -1).view(-1, 3) * radius
    i, j = torch.meshgrid(torch.arange(rows - 1), torch.arange(2 * rows), indexing="ij")
    a, b = i * 2 * rows + j, i * 2 * rows + (j + 1) % (2 * rows)
    below_a, below_b = a + 2 * rows, b + 2 * rows
    return points, torch.stack([torch.stack([a, below_a, below_b], -1), torch.stack([a, below_b, b], -1)], -2).view(-1, 3)


def test_sixteen_cameras_as_nersembles():
    cameras = nersemble_arc(target=(0.01, 0.02, 0.03), width=200, height=100)
    eyes = torch.stack([camera_position(c) for c in cameras]) - torch.tensor([0.01, 0.02, 0.03])
    torch.testing.assert_close(eyes.norm(dim=-1), torch.ones(16))
    azimuth, elevation = (torch.rad2deg(x) for x in (torch.atan2(eyes[:, 0], eyes[:, 2]), torch.asin(eyes[:, 1])))
    assert azimuth[0] == pytest.approx(-75, abs=1e-3) and azimuth[15] == pytest.approx(75, abs=1e-3) and (azimuth.diff() > 0).all()
    assert len(set(elevation.round().tolist())) == 2
    torch.testing.assert_close(cameras[8].viewmat[:3, :3], torch.diag(torch.tensor([1.0, -1, -1])))
    assert cameras[8].K[0, 0] == pytest.approx(0.5 * 100 / 0.17) and len(nersemble_arc(1)) == 1


def test_spherical_harmonics_are_orthonormal():
    basis = sh_basis(sphere_points(200_000).double())
    torch.testing.assert_close(4 * math.pi * basis.T @ basis / len(basis), torch.eye(9).double(), atol=0.03, rtol=0)


def test_light_from_one_lamp_is_nearly_the_clamped_cosine():
    """Two bands beyond the constant hold a clamped cosine to within about a tenth (Ramamoorthi and Hanrahan)."""
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, 0.5, 0.8]]), dim=-1)
    bands = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)[:, None] * math.pi
    light = Light(bands * sh_basis(direction).T.repeat(1, 3), direction, torch.ones(1, 3))
    normals = sphere_points(5000)
    error = irradiance(light, normals)[:, 0] - (normals @ direction[0]).clamp_min(0)
    assert error.abs().max() < 0.1


def test_random_light_reaches_every_side_and_comes_from_the_front():
    for seed in range(20):
        arriving = irradiance(random_light(seed), torch.tensor([[0, 0, 1.0], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, -1, 0]]))
        assert (arriving > 0.1).all() and (arriving[0] > arriving[1]).all() and (arriving < 2).all()


def test_occlusion_of_a_sphere_alone_and_inside_another():
    points, faces = icosphere(0.1)
    normals = points / 0.1
    assert ambient_occlusion(points, normals, faces).min() > 0.95
    shell, shell_faces = icosphere(0.2)
    both = torch.cat([points, shell])
    nested = ambient_occlusion(both, torch.cat([normals, shell / 0.2]), torch.cat([faces, shell_faces + len(points)]))
    assert nested[: len(points)].max() < 0.05 and nested[len(points) :].min() > 0.9


def test_occlusion_on_a_floor_below_a_wall():
    """Half the sky is hidden at the foot of an endless wall: a quarter-sphere's cosine share is one half."""
    floor = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [1, 0, 1], [-1, 0, 1]])
    wall = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [1, 2, 0], [-1, 2, 0]])
    probe = torch.tensor([[0.0, 1e-3, 0.03]])
    vertices = torch.cat([floor, wall, probe])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    up = torch.tensor([[0.0, 1, 0]]).expand(len(vertices), 3)
    assert float(ambient_occlusion(vertices, up, faces)[-1]) == pytest.approx(0.5, abs=0.12)


def test_colours_convert_there_and_back():
    x = torch.linspace(0, 1, 256)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-5, rtol=0)
    assert color(188, 188, 188)[0] == pytest.approx(0.503, abs=2e-3)


def test_noise_is_smooth_repeatable_and_centred():
    noise = Noise3(generator(3, "a"))
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    value = noise(points, 0.02, 3)
    assert torch.equal(value, Noise3(generator(3, "a"))(points, 0.02, 3)) and value.abs().max() <= 1 and value.mean().abs() < 0.1
    assert not torch.equal(value, Noise3(generator(4, "a"))(points, 0.02, 3))
    assert (noise(points + 1e-6, 0.02, 3) - value).abs().max() < 1e-3
    period = 32 * 0.02
    torch.testing.assert_close(noise(points + period, 0.02), noise(points, 0.02), atol=1e-3, rtol=0)


def test_noise_over_time_is_about_normal_and_smooth():
    x = over_time(generator(0, "x"), 20_000, 25.0, 1.0)
    assert x.mean().abs() < 0.1 and x.std() == pytest.approx(1, abs=0.2)
    assert x.diff().abs().max() < 0.3 and x.diff().diff().abs().max() < 0.05
    torch.testing.assert_close(smoothstep(1, 0, torch.tensor([-1.0, 0.5, 2.0])), torch.tensor([1.0, 0.5, 0.0]))


def test_distance_to_a_line_is_the_least_over_its_points():
    rng = torch.Generator().manual_seed(0)
    points, line = torch.randn(50, 3, generator=rng), torch.randn(6, 3, generator=rng)
    t = torch.linspace(0, 5, 5001)
    k = t.floor().long().clamp_max(4)
    dense = line[k] + (t - k)[:, None] * (line[k + 1] - line[k])
    want, at = torch.cdist(points.double(), dense.double()).min(1)
    distance, along = nearest_on_line(points, line, math.inf)
    torch.testing.assert_close(distance, want.float(), atol=2e-3, rtol=0)
    torch.testing.assert_close(along, t[at] / 5, atol=2e-2, rtol=0)
    near = nearest_on_line(points, line, 0.5)[0]
    assert torch.equal(near[distance < 0.5], distance[distance < 0.5]) and near.isinf().any()


def test_signed_distance_to_a_square():
    square = torch.tensor([[0.0, 0, 5], [2, 0, 6], [2, 2, 7], [0, 2, 8]])
    points = torch.tensor([[1.0, 1, 4], [1.9, 1, 8], [3, 1, 6], [1, 1, 0], [9, 1, 6]])
    got = signed_distance_xy(points, square, 2.0)
    torch.testing.assert_close(got, torch.tensor([-1, -0.1, 1, math.inf, math.inf]))


def test_rigid_motion_is_found_again():
    rng = torch.Generator().manual_seed(0)
    rest = torch.randn(40, 3, generator=rng) * 0.1
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=rng))[0]
    rotation = rotation * torch.linalg.det(rotation).sign()
    got, translation = rigid_motion(rest, rest @ rotation.T + torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(got, rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(translation, torch.tensor([0.1, 0.2, 0.3]), atol=1e-5, rtol=0)
    flat = rest * torch.tensor([1, 1, 0])  # a plane must not be mirrored
    assert torch.linalg.det(rigid_motion(flat, flat)[0]) > 0.99


def test_atlas_keeps_parts_apart_and_texels_lie_on_the_mesh(rig):
    atlas = lay_out(rig, 128)
    covered = texels(atlas)
    assert atlas.corners.min() >= 0 and atlas.corners.max() <= 1
    position = torch.stack([covered.columns / (128 * atlas.n_pages), covered.rows / 128], -1)
    uv = (atlas.corners[covered.faces] * covered.barycentrics[..., None]).sum(1)
    half = torch.tensor([0.5 / (128 * atlas.n_pages), 0.5 / 128])
    torch.testing.assert_close(uv, position + half, atol=1e-4, rtol=0)
    page = (atlas.corners.mean(1)[:, 0] * atlas.n_pages).long()
    eyes = [set(page[rig.regions[name][rig.faces].all(1)].tolist()) for name in ("left_eye", "right_eye")]
    assert not eyes[0] & eyes[1]
    picture = fill(nearest_covered(atlas, covered), covered, torch.ones(len(covered.rows), 1))
    assert (picture == 1).all()


def test_smoothing_keeps_constants_and_spreads():
    _, faces = icosphere(1.0, rows=8)
    n = int(faces.max()) + 1
    torch.testing.assert_close(smooth_over_mesh(faces, torch.ones(n), 5), torch.ones(n))
    spike = torch.zeros(n)
    spike[40] = 1
    spread = smooth_over_mesh(faces, spike, 2)
    assert 0 < float(spread[40]) < 1 and int((spread > 0).sum()) > 7


def test_motion_is_smooth_bounded_and_blinks(rig):
    params = random_motion(rig, random_identity(rig, 0), 0, 120, 24.0)
    assert len(params) == 120 and params.expr.min() >= 0 and params.expr.max() <= 1
    names = [name.replace("Left", "_L") for name in rig.expression_names]
    blink = params.expr[:, names.index("eyeBlink_L")]
    assert blink.max() > 0.9 and (blink < 0.1).float().mean() > 0.5
    others = [i for i, name in enumerate(names) if not name.startswith(("eyeBlink", "eyeWide", "eyeSquint"))]
    assert params.expr[:, others].diff(dim=0).abs().max() < 0.45
    assert (params.expr.amax(0) > 0.1).sum() >= 12
    head = params.rotation + params.neck_pose
    assert 0.1 < head[:, 1].std() < 0.5 and head.abs().max() < 1.0 and head.diff(dim=0).abs().max() < 0.06
    assert params.eyes_pose.abs().max() < 0.5 and torch.equal(params.eyes_pose[:, :3], params.eyes_pose[:, 3:])


def test_identity_is_plausible(rig):
    shape = random_identity(rig, 7)
    assert shape.shape == (rig.n_shape,) and shape.abs().max() <= 1.6 and torch.equal(shape, random_identity(rig, 7))
    assert not torch.equal(shape, random_identity(rig, 8))


def test_skull_is_solid_and_hair_stays_outside(rig):
    vertices = rig.vertices(rig.neutral())[0]
    skull = Skull.of(rig, vertices)
    scalp = vertices[rig.regions["scalp"]]
    pushed = skull.push_out(skull.center + 0.2 * (scalp - skull.center), 0.005)
    reach, solid = (pushed - skull.center).norm(dim=-1), (scalp - skull.center).norm(dim=-1)
    assert ((reach - solid - 0.005).abs() < 0.012).float().mean() > 0.9
    far = skull.center + torch.tensor([[0.0, 0.5, 0.0]])
    torch.testing.assert_close(skull.push_out(far, 0.01), far)
    marks = rig.landmark_points(vertices[None], "ibug68")[0]
    assert skull.in_face(marks[30:31]).all() and not skull.in_face(scalp).any()


def test_cropped_hair_leaves_the_ears_free(rig):
    vertices = rig.vertices(rig.neutral())[0]
    skull = Skull.of(rig, vertices)
    assert skull.at_ear(vertices[rig.regions["ears"]]).float().mean() > 0.8
    hair = grow_hair(rig, vertices, random_look(1, "short"), 1)
    locks = hair.vertices[-3400 * 7 * 3 :].view(3400, 7, 3, 3).mean(2)  # middles of the tubes, from root to tip
    reach_in = skull.at_ear(locks[:, -1]) & ~skull.at_ear(locks[:, 0])
    assert not reach_in.any()


def test_long_hair_hangs_over_the_neck_and_out_of_the_face(rig):
    vertices = rig.vertices(rig.neutral())[0]
    skull, chin_y = Skull.of(rig, vertices), float(rig.landmark_points(vertices[None], "ibug68")[0, 8, 1])
    seeds = range(6)
    assert any(Cut.random(seed).fringe for seed in seeds) and not all(Cut.random(seed).fringe for seed in seeds)
    for seed in seeds:
        hair = grow_hair(rig, vertices, random_look(seed, "long"), seed, detail=0.25)
        n = int(2600 * 0.25)
        locks = hair.vertices[-n * 17 * 3 :].view(n, 17, 3, 3).mean(2)  # middles of the tubes, from root to tip
        tips = locks[:, -1]
        assert (tips[:, 1] < chin_y).float().mean() > 0.6 and (tips[:, 2] < 0).float().mean() > 0.5
        reach = skull.in_face(locks.flatten(0, 1)) & (locks.flatten(0, 1)[:, 1] < skull.face_max_y - 0.02)
        narrow = (locks.flatten(0, 1)[:, 0] - skull.center[0]).abs() < 0.8 * skull.face_half_width
        assert (reach & narrow).float().mean() < 0.005
        steps = (locks[:, 1:] - locks[:, :-1]).norm(dim=-1)
        assert steps.max() < 0.06


def test_a_longer_cut_has_a_lower_hem():
    short, long = Cut.random(3, 0.7), Cut.random(3, 1.4)
    assert long.hem == pytest.approx(2 * short.hem) and long.parting == short.parting


def test_shoulders_part_hair_to_the_front_and_the_back(rig):
    vertices = rig.vertices(rig.neutral())[0]
    neck = Neck.of(rig, vertices)
    inside = torch.tensor([[0.03, -0.16, neck.axis[1]]]).repeat(2, 1)
    front, back = neck.push_out(inside, torch.full((2,), 0.005), torch.tensor([True, False]))
    assert front[2] > neck.axis[1] + 0.03 and back[2] < neck.axis[1] - 0.03
    throat = torch.tensor([[0.02, -0.09, neck.axis[1]]])
    pushed = neck.push_out(throat, torch.full((1,), 0.005), torch.tensor([True]))[0]
    assert pushed[0] > 0.03 and pushed[1] == throat[0, 1]
    far = torch.tensor([[0.3, -0.1, 0.0]])
    torch.testing.assert_close(neck.push_out(far, torch.zeros(1), torch.tensor([True])), far)
