"""interpolate at 512 x 512 beside indexing in torch."""

from __future__ import annotations

import pytest
import torch

from benchmarks.devices import devices, moved, timed
from gafcore import interpolate
from gafcore.cameras import from_angles
from gafcore.mesh import rasterize
from tests.cases.meshes import sphere
from tests.reference import mesh as reference

OPS = {"gafcore": interpolate, "torch-indexing": reference.interpolate}
ROUNDS = {"gafcore": 20, "torch-indexing": 5}
ops = pytest.mark.parametrize("op", OPS)
channels = pytest.mark.parametrize("channels", [3, 32])


def scene(n_channels: int):
    vertices, faces = sphere(160)
    raster = rasterize(vertices.float(), faces, from_angles(0.4, 0.2, 1.0, focal_px=2048, width=512, height=512))
    attributes = torch.randn(len(vertices), n_channels, generator=torch.Generator().manual_seed(0))
    return attributes, faces, raster.triangle_ids, raster.barycentrics


@ops
@channels
@devices
def test_forward(benchmark, device, op, channels):
    timed(benchmark, device, OPS[op], *moved(scene(channels), device), rounds=ROUNDS[op])


@ops
@channels
@devices
def test_forward_backward(benchmark, device, op, channels):
    attributes, faces, ids, barycentrics = moved(scene(channels), device)
    attributes.requires_grad_()
    barycentrics.requires_grad_()

    def step():
        OPS[op](attributes, faces, ids, barycentrics).sum().backward()
        attributes.grad = barycentrics.grad = None

    timed(benchmark, device, step, rounds=ROUNDS[op])
