"""Rasterization of the head ball: forward, forward and backward, peak memory, and the PyTorch yardstick beside them.

The yardstick is a file of its own (GAFCORE_YARDSTICK names it); without it its rows are left out.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.devices import devices, moved, timed
from benchmarks.memory import ROOT, growth_mib, needs_linux
from gafcore import rasterization
from tests.cases.rasterization import NAMES, RESOLUTIONS, head_ball

THREADS = int(os.environ.get("GAFCORE_BENCH_THREADS", "2"))
SIZES = (10_000, 50_000, 100_000)
DEGREES = (0, 3)
YARDSTICK = Path(os.environ.get("GAFCORE_YARDSTICK", ROOT.parent / "shared" / "tools" / "headball.py"))

every_size = pytest.mark.parametrize("n", SIZES)
every_resolution = pytest.mark.parametrize("resolution", RESOLUTIONS)
every_degree = pytest.mark.parametrize("degree", DEGREES)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def forward_and_backward(scene, tensors, upstream):
    for v in tensors.values():
        v.grad = None
    image = scene.call(rasterization, tensors)[0]
    image.backward(upstream[None])  # and no other op: torch's own threads, spinning, would blur the figure on a busy machine
    return image


def ball(n, resolution, degree, device):
    scene, upstream = head_ball(n, resolution, degree)
    return replace(scene, Ks=scene.Ks.to(device)), upstream.to(device)


def leaves(scene):
    """Gradients for the Gaussians, as the yardstick gives them, not for camera and background."""
    return {k: v.requires_grad_(k in NAMES[:5]) for k, v in scene.tensors(torch.float32).items()}


@every_degree
@every_resolution
@every_size
@devices
def test_forward(benchmark, device, n, resolution, degree):
    benchmark.group = f"{resolution} SH {degree} forward"
    scene, _ = ball(n, resolution, degree, device)
    tensors = moved(scene.tensors(torch.float32), device)
    _, _, meta = timed(benchmark, device, scene.call, rasterization, tensors)
    benchmark.extra_info.update(pairs=int(meta["n_pairs"]), blended=int(meta["n_pairs_blended"]), threads=THREADS)


@every_degree
@every_resolution
@every_size
@devices
def test_forward_backward(benchmark, device, n, resolution, degree):
    benchmark.group = f"{resolution} SH {degree} forward+backward"
    scene, upstream = ball(n, resolution, degree, device)
    timed(benchmark, device, forward_and_backward, scene, moved(leaves(scene), device), upstream)
    benchmark.extra_info.update(threads=THREADS)


SETUP = """
import torch
from tests.cases.rasterization import head_ball
from benchmarks.bench_rasterization import THREADS, forward_and_backward, leaves
torch.set_num_threads(THREADS)
small, upstream = head_ball(1000, "256x256", 3)
forward_and_backward(small, leaves(small), upstream)
scene, upstream = head_ball(int(sys.argv[1]), sys.argv[2], 3)
tensors = leaves(scene)
"""


@needs_linux
@every_resolution
@every_size
def test_peak_memory(benchmark, n, resolution):
    """Growth of the process's peak over the inputs, SH 3: image, gradients, what is kept, scratch. The time is that of a whole process."""
    benchmark.group = "peak memory"
    measured = "image = forward_and_backward(scene, tensors, upstream)"
    benchmark.extra_info["peak_mib"] = benchmark.pedantic(growth_mib, (SETUP, measured, n, resolution), rounds=1)


@pytest.mark.skipif(not YARDSTICK.exists(), reason=f"no yardstick at {YARDSTICK} (set GAFCORE_YARDSTICK)")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward_backward"])
@pytest.mark.parametrize("n", [10_000, 50_000])
def test_yardstick(benchmark, n, backward):
    benchmark.group = f"512x512 SH 0 {'forward+backward' if backward else 'forward'}"
    spec = importlib.util.spec_from_file_location("yardstick", YARDSTICK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scene = module.scene(n, "512x512", 0)
    tensors = [scene[k].requires_grad_(backward) for k in ("means", "quats", "scales", "opacities", "sh")]

    def run():
        image = module.yardstick(scene, *tensors)
        if backward:
            (image * scene["G"]).sum().backward()

    benchmark.pedantic(run, rounds=1)
