from __future__ import annotations

import pytest
import torch

from gafcore.cameras import from_angles, look_at
from gafcore.mesh import antialiased, depth_map, entries, mask_map, normal_map, rasterize, sample_texture, sum_at, vertex_normals
from tests.cases.meshes import sphere

CAMERA = look_at((0, 0, 1), (0, 0, 0), focal_px=200, width=65, height=49)


def test_normals_of_a_sphere_point_outwards():
    vertices, faces = sphere(32)
    normals = vertex_normals(vertices, faces)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(vertices), dtype=torch.float64))
    assert (normals * vertices / vertices.norm(dim=-1, keepdim=True)).sum(-1).min() > 0.999


def test_normals_are_weighted_by_area():
    """One corner of a box, cut into one triangle on two sides and two on the third: the diagonal all the same."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    faces = torch.tensor([[0, 1, 4], [0, 4, 2], [0, 2, 3], [0, 3, 1]])
    torch.testing.assert_close(vertex_normals(vertices, faces)[0], torch.tensor([0.5, 0.5, 1.0]) / 1.5**0.5)


def test_normals_batched_and_differentiable():
    vertices, faces = sphere(5)
    batch = torch.stack([vertices, vertices * torch.tensor([1.0, 2, 3])]).requires_grad_()
    torch.testing.assert_close(vertex_normals(batch, faces)[1], vertex_normals(batch[1], faces))
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), (batch,), atol=1e-4)


def test_normal_of_nothing_is_zero():
    vertices = torch.zeros(4, 3, requires_grad=True)
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 0, 1]]))
    assert torch.all(normals == 0)
    normals.sum().backward()
    assert torch.all(vertices.grad.isfinite())
    assert vertex_normals(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_sums_at_places_are_those_of_index_add():
    """Also what a GPU does in its place, "meta" standing in for one."""
    rows, values = torch.tensor([[2, 0], [2, 2]]), torch.arange(12.0)
    places = entries(rows, 3)
    assert places.tolist() == [6, 7, 8, 0, 1, 2, 6, 7, 8, 6, 7, 8]
    assert sum_at(places, values, 9).tolist() == [3, 4, 5, 0, 0, 0, 0 + 6 + 9, 1 + 7 + 10, 2 + 8 + 11]
    there = sum_at(places.to("meta"), values.to("meta").requires_grad_(), 9)
    assert there.shape == (9,) and there.grad_fn.name() == "IndexPutBackward0"


def test_normals_same_bits_at_any_number_of_threads(threads):
    vertices, faces = sphere(60)
    results = []
    for n in (1, 2, 7):
        threads(n)
        v = vertices.float().requires_grad_()
        normals = vertex_normals(v, faces)
        results.append((normals, *torch.autograd.grad((normals * v).sum(), v)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_normal_map_axes():
    """A sphere from the front: towards the camera is -z in its axes and +z in the world's; y points down in the one, up in the other."""
    vertices, faces = (x.float() if x.is_floating_point() else x for x in sphere(32))
    camera_space = normal_map(vertices, faces, CAMERA)[0]
    world_space = normal_map(vertices, faces, CAMERA, space="world")[0]
    torch.testing.assert_close(camera_space[24, 32], torch.tensor([0.0, 0, -1]), atol=2e-3, rtol=0)
    torch.testing.assert_close(world_space[24, 32], torch.tensor([0.0, 0, 1]), atol=2e-3, rtol=0)
    assert camera_space[10, 32, 1] < -0.5 < 0.5 < world_space[10, 32, 1]
    assert camera_space[24, 45, 0] > 0.5
    assert torch.all(camera_space[0, 0] == 0)


def test_depth_and_mask_of_a_sphere():
    vertices, faces = (x.float() if x.is_floating_point() else x for x in sphere(48))
    cameras = [from_angles(a, 0.3, 1.0, focal_px=200, width=65, height=49) for a in (0.0, 1.0, 2.5)]
    depth, mask = depth_map(vertices, faces, cameras), mask_map(vertices, faces, cameras)
    torch.testing.assert_close(depth[:, 24, 32], torch.full((3,), 0.9), atol=1e-3, rtol=0)
    assert torch.equal(mask, (depth > 0).float())
    radius_px = 200 * 0.1 / (1 - 0.1**2) ** 0.5
    torch.testing.assert_close(mask.sum((1, 2)), torch.full((3,), torch.pi * radius_px**2), rtol=0.02, atol=0)


def test_texture_corners_and_middle():
    texture = torch.arange(12.0).reshape(2, 3, 2)  # row 0 is the top of the picture
    uvs = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [-3.0, 9.0], [1 / 6, 0.75]])
    want = torch.stack([texture[1, 0], texture[0, 2], texture[:, 1].mean(0), texture[0, 0], texture[0, 0]])
    torch.testing.assert_close(sample_texture(texture, uvs), want)
    assert sample_texture(texture, uvs.reshape(1, 5, 1, 2)).shape == (1, 5, 1, 2)


def test_texture_gradients():
    g = torch.Generator().manual_seed(0)
    texture = torch.rand(4, 5, 2, generator=g, dtype=torch.float64, requires_grad=True)
    uvs = torch.rand(6, 2, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_texture, (texture, uvs))


def test_antialiasing_measures_the_covered_area():
    """A rectangle whose edges cut pixels at a quarter and at half of their width."""
    corners = torch.tensor([[10.25, 8.5], [20.0, 8.5], [20.0, 16.0], [10.25, 16.0]])
    xy = (corners - torch.tensor([32.5, 24.5])) / 200 * torch.tensor([1, -1])
    vertices = torch.cat([xy, torch.zeros(4, 1)], -1)
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    alpha = antialiased(lambda raster: (raster.triangle_ids >= 0).float()[..., None], vertices, faces, CAMERA, samples=4)[..., 0]
    assert alpha.shape == (49, 65)
    torch.testing.assert_close(alpha.sum(), torch.tensor(9.75 * 7.5), rtol=1e-5, atol=0)
    torch.testing.assert_close(alpha[8, 10:13], torch.tensor([0.375, 0.5, 0.5]))
    torch.testing.assert_close(alpha[10, 9:12], torch.tensor([0.0, 0.75, 1.0]))
    one = antialiased(lambda raster: raster.depth[..., None], vertices, faces, CAMERA, samples=1)[..., 0]
    assert torch.equal(one, rasterize(vertices, faces, CAMERA).depth[0])
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        antialiased(lambda raster: raster.depth[..., None], vertices, faces, CAMERA, samples=0)
