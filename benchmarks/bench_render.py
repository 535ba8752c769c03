"""Frames a second of a posed avatar: rig, binding and rasterization, by number of Gaussians and size of the picture.
On a GPU where there is one that gafcore can use; memory is the CPU's."""

from __future__ import annotations

import pytest
import torch

from benchmarks.devices import BEST, timed
from benchmarks.heads import bare_head, with_count
from benchmarks.memory import growth_mib, needs_linux
from gafcore.avatars import RiggedAvatar, render
from gafcore.cameras import from_angles
from gafcore.types import Camera

SIZES = {"256x256": (256, 256), "512x512": (512, 512), "802x550": (550, 802)}  # width, height
N_GAUSSIANS = (10_000, 50_000, 100_000)


@pytest.fixture(scope="module")
def head() -> RiggedAvatar:
    return bare_head()


def view(size: str) -> Camera:
    width, height = SIZES[size]
    return from_angles(0.2, 0.1, 1.0, focal_px=2.2 * min(width, height), width=width, height=height)


def frame(avatar: RiggedAvatar, camera: Camera) -> None:
    with torch.no_grad():
        render(avatar, [camera], avatar.params)


@pytest.mark.benchmark(group="render")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_gaussians", N_GAUSSIANS)
def test_frame(benchmark, head, n_gaussians, size):
    device = torch.device(BEST)
    timed(benchmark, BEST, frame, with_count(head, n_gaussians).to(device), view(size).to(device), rounds=15, warmup_rounds=2)
    benchmark.extra_info["frames a second"] = 1 / benchmark.stats["median"]


SETUP = """
from benchmarks.bench_render import frame, view
from benchmarks.devices import BEST, timed
from benchmarks.heads import bare_head, with_count
head = bare_head()
frame(with_count(head, 1000), view("256x256"))
avatar, camera = with_count(head, int(sys.argv[1])), view(sys.argv[2])
"""


@needs_linux
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_gaussians", N_GAUSSIANS)
def test_peak_memory(benchmark, n_gaussians, size):
    """Growth of a process's peak over the avatar. The time is that of the whole process."""
    benchmark.group = "render, peak memory"
    peak = benchmark.pedantic(growth_mib, (SETUP, "frame(avatar, camera)", n_gaussians, size), rounds=1)
    benchmark.extra_info["peak_mib"] = peak
