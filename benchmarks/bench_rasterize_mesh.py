"""rasterize_mesh on a sphere of 50,880 triangles that fills most of the image: about as many as a detailed head has."""

from __future__ import annotations

import pytest
import torch

from benchmarks.devices import devices, moved, timed
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
@devices
def test_forward(benchmark, device, size):
    raster = timed(benchmark, device, rasterize_mesh, *moved(scene(size), device), rounds=20, warmup_rounds=3)
    benchmark.extra_info["covered"] = float((raster.triangle_ids >= 0).float().mean())


@pytest.mark.parametrize("size", [256, 512])
@devices
def test_forward_backward(benchmark, device, size):
    vertices, *rest = moved(scene(size), device)
    vertices.requires_grad_()
    gradients = (torch.ones(1, size, size, 3, device=device), torch.ones(1, size, size, device=device))

    def step():
        torch.autograd.backward(rasterize_mesh(vertices, *rest)[1:], gradients)
        vertices.grad = None

    timed(benchmark, device, step, rounds=20, warmup_rounds=3)


@devices
def test_sixteen_cameras(benchmark, device):
    vertices, faces = sphere(160)
    cameras = [from_angles(0.2 * i, 0.2, 1.0, focal_px=1024, width=256, height=256).to(torch.device(device)) for i in range(16)]
    timed(benchmark, device, rasterize, vertices.float().to(device), faces.to(device), cameras, rounds=10, warmup_rounds=2)


@devices
def test_antialiased(benchmark, device):
    """A 512 x 512 mask from 4 x 4 points a pixel."""
    vertices, faces = sphere(160)
    camera = from_angles(0.4, 0.2, 1.0, focal_px=2048, width=512, height=512).to(torch.device(device))
    shade = lambda raster: (raster.triangle_ids >= 0).float()[..., None]  # noqa: E731
    timed(benchmark, device, antialiased, shade, vertices.float().to(device), faces.to(device), camera, rounds=5)


@devices
def test_vertex_normals(benchmark, device):
    vertices, faces = sphere(160)
    timed(benchmark, device, vertex_normals, vertices.float().to(device), faces.to(device), rounds=20, warmup_rounds=3)
