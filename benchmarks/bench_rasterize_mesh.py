"""rasterize_mesh on a sphere of 50,880 triangles that fills most of the image: about as many as a detailed head has."""

from __future__ import annotations

import pytest
import torch

from gafcore import rasterize_mesh
from gafcore.cameras import from_angles
from gafcore.mesh import antialiased, rasterize, vertex_normals
from tests.cases.meshes import sphere

sizes = pytest.mark.parametrize("size", [256, 512, 1024, 2048])


def scene(size: int):
    vertices, faces = sphere(160)
    camera = from_angles(0.4, 0.2, 1.0, focal_px=4 * size, width=size, height=size)
    return vertices.float(), faces, camera.viewmat[None], camera.K[None], size, size


@sizes
def test_forward(benchmark, size):
    args = scene(size)
    raster = benchmark.pedantic(rasterize_mesh, args, rounds=20, warmup_rounds=3)
    benchmark.extra_info["covered"] = float((raster.triangle_ids >= 0).float().mean())


@pytest.mark.parametrize("size", [256, 512])
def test_forward_backward(benchmark, size):
    vertices, *rest = scene(size)
    vertices.requires_grad_()
    gradients = (torch.ones(1, size, size, 3), torch.ones(1, size, size))

    def step():
        torch.autograd.backward(rasterize_mesh(vertices, *rest)[1:], gradients)
        vertices.grad = None

    benchmark.pedantic(step, rounds=20, warmup_rounds=3)


def test_sixteen_cameras(benchmark):
    vertices, faces = sphere(160)
    cameras = [from_angles(0.2 * i, 0.2, 1.0, focal_px=1024, width=256, height=256) for i in range(16)]
    benchmark.pedantic(rasterize, (vertices.float(), faces, cameras), rounds=10, warmup_rounds=2)


def test_antialiased(benchmark):
    """A 512 x 512 mask from 4 x 4 points a pixel."""
    vertices, faces = sphere(160)
    camera = from_angles(0.4, 0.2, 1.0, focal_px=2048, width=512, height=512)
    args = (lambda raster: (raster.triangle_ids >= 0).float()[..., None], vertices.float(), faces, camera)
    benchmark.pedantic(antialiased, args, rounds=5, warmup_rounds=1)


def test_vertex_normals(benchmark):
    vertices, faces = sphere(160)
    benchmark.pedantic(vertex_normals, (vertices.float(), faces), rounds=20, warmup_rounds=3)
