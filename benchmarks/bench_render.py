"""Frames a second of a posed avatar: rig, binding and rasterization, by number of Gaussians and size of the picture."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest
import torch

from gafcore.avatars import RiggedAvatar, init_avatar, render
from gafcore.cameras import from_angles
from gafcore.rigs import load_rig

SIZES = {"256x256": (256, 256), "512x512": (512, 512), "802x550": (550, 802)}  # width, height


@pytest.fixture(scope="module")
def head() -> RiggedAvatar:
    rig = load_rig("procedural")
    return init_avatar(rig, rig.neutral(1), opacity=0.9)


def with_count(avatar: RiggedAvatar, n: int) -> RiggedAvatar:
    """`n` Gaussians spread evenly over the triangles, each about half as large as its triangle."""
    faces = len(avatar)
    source = torch.arange(n) * faces // n if n < faces else torch.arange(n) % faces
    tensors = {name: x[source].clone() for name, x in avatar.parameters().items()}
    tensors["log_scales"] += torch.tensor([0.4, 0.05, 0.4]).log()
    tensors["means"] += 0.3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return replace(avatar, binding=avatar.binding[source], **tensors)


@pytest.mark.benchmark(group="render")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_gaussians", [10_000, 50_000, 100_000])
def test_frame(benchmark, head, n_gaussians, size):
    avatar = with_count(head, n_gaussians)
    width, height = SIZES[size]
    camera = from_angles(0.2, 0.1, 1.0, focal_px=2.2 * min(width, height), width=width, height=height)

    def frame() -> None:
        with torch.no_grad():
            render(avatar, [camera], avatar.params)

    benchmark.pedantic(frame, rounds=15, warmup_rounds=2)
    benchmark.extra_info["frames a second"] = 1 / benchmark.stats["median"]
    benchmark.extra_info["peak MiB of the process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
