"""What a call of an op costs beside its kernels: scenes of sixteen Gaussians, twenty vertices, 16 x 16 pixels.

A round is a hundred calls, one after the other without waiting, and its time is that of one: on a GPU, too, the host decides here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.devices import devices
from gafcore import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh
from gafcore.cameras import from_angles

SIZE = 16


class Case(NamedTuple):
    call: Callable[..., tuple[Tensor, ...]]
    leaves: list[Tensor]


def cases(device: str) -> dict[str, Case]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    faces = torch.randint(20, (30, 3), generator=generator).to(device)
    binding = torch.randint(30, (16,), generator=generator).to(device)
    camera = from_angles(0.4, 0.2, 1.0, focal_px=20, width=SIZE, height=SIZE)
    viewmats, Ks = camera.viewmat[None].float().to(device), camera.K[None].float().to(device)
    vertices, target, white = normal(20, 3), normal(SIZE, SIZE, 3).sigmoid(), torch.ones(1, 3, device=device)
    gaussians = [normal(16, 3) * 0.2, normal(16, 4), normal(16, 3).exp() * 0.02, normal(16).sigmoid(), normal(16, 1, 3)]
    with torch.no_grad():
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, SIZE, SIZE)

    def draw(*leaves: Tensor) -> tuple[Tensor, ...]:
        return (rasterization(*leaves, viewmats, Ks, SIZE, SIZE, sh_degree=0, backgrounds=white)[0],)

    def bind(vertices: Tensor, *local: Tensor) -> tuple[Tensor, ...]:
        return bind_triangles(vertices, faces, binding, *local)

    def skin(vertices: Tensor, axis_angles: Tensor, joints: Tensor, translations: Tensor) -> tuple[Tensor, ...]:
        return (linear_blend_skinning(vertices, weights, axis_angles, joints, (-1, 0, 1), translations),)

    weights = torch.full((20, 3), 1 / 3, device=device)
    return {
        "rasterization": Case(draw, gaussians),
        "bind_triangles": Case(bind, [vertices[None], normal(16, 3), normal(16, 4), normal(16, 3)]),
        "photometric_loss": Case(lambda image: photometric_loss(image, target), [normal(SIZE, SIZE, 3).sigmoid()]),
        "linear_blend_skinning": Case(skin, [vertices[None], normal(1, 3, 3), normal(1, 3, 3), normal(1, 3)]),
        "rasterize_mesh": Case(lambda vertices: rasterize_mesh(vertices, faces, viewmats, Ks, SIZE, SIZE)[1:], [vertices]),
        "interpolate": Case(
            lambda *leaves: (interpolate(leaves[0], faces, raster.triangle_ids, leaves[1]),), [normal(20, 3), raster.barycentrics]
        ),
    }


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def measure(benchmark, step: Callable[[], object]) -> None:
    benchmark.pedantic(step, rounds=50, iterations=100, warmup_rounds=2)


@pytest.mark.parametrize("op", cases("cpu"))
@devices
def test_forward(benchmark, op, device):
    call, leaves = cases(device)[op]
    with torch.no_grad():
        measure(benchmark, lambda: call(*leaves))


@pytest.mark.parametrize("op", cases("cpu"))
@devices
def test_forward_backward(benchmark, op, device):
    call, leaves = cases(device)[op]
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    upstream = [torch.ones_like(y) for y in call(*leaves)]

    def step():
        for x in leaves:
            x.grad = None
        torch.autograd.backward(call(*leaves), upstream)

    measure(benchmark, step)
