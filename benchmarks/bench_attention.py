"""multiview_attention at the shapes of one UNet's calls, beside every backend that SDPA has here; on a GPU by CUDA graphs.

    gafcore bench attention

The rows that belong into python/gafcore/attention/choices.json are printed at the end of a run on a GPU.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gafcore.attention import multiview_attention

GPU = torch.cuda.is_available() and os.environ.get("GAFCORE_BENCH_DEVICE") != "cpu"  # needs no kernels of gafcore
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)


@dataclass(frozen=True)
class Level:
    """Attention calls of Stable Diffusion 2.1's UNet at one level: four views' tokens, and the input picture's in a buffer of its own."""

    name: str
    heads: int
    tokens: int  # of one frame
    layers: int  # calls in one pass


# 32 x 32 latents; 64 x 64 ones have each level's tokens four times.
LEVELS = [Level("32x32", 5, 1024, 5), Level("16x16", 10, 256, 5), Level("8x8", 20, 64, 5), Level("4x4", 20, 16, 1)]
LEVELS += [Level("64x64", 5, 4096, 5)] if GPU else []
levels = pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
SDPA = (
    {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION} if GPU else {}
)
PATHS = ["sdpa", *SDPA, *(["triton"] if GPU else [])]
paths = pytest.mark.parametrize("path", PATHS)
_measured: list[dict] = []


def tensors(level: Level):
    """q, k, v of four views and the reference's k, v, as projections leave them: [1, tokens, heads, 64]."""
    g = torch.Generator().manual_seed(0)
    shapes = [(1, 4 * level.tokens, level.heads, 64)] * 3 + [(1, level.tokens, level.heads, 64)] * 2
    return [torch.randn(shape, generator=g).to(DEVICE, DTYPE).requires_grad_() for shape in shapes]


def attend(path: str, inputs):
    """One call; SDPA's includes putting the reference's keys behind the views'."""
    if path == "triton":
        return multiview_attention(*inputs, backend="triton")
    if path == "sdpa":
        return multiview_attention(*inputs, backend="sdpa")
    with sdpa_kernel(SDPA[path]):
        return multiview_attention(*inputs, backend="sdpa")


def forward(path, inputs):
    with torch.no_grad():
        attend(path, inputs)


def backward(path, inputs):
    for x in inputs:
        x.grad = None
    attend(path, inputs).backward(torch.ones_like(inputs[0]))


def graphed(step, path, inputs):
    """The step as a CUDA graph, so that launches cost nothing; the step itself on a CPU."""
    if not GPU:
        return lambda: step(path, inputs)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(path, inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(path, inputs)

    def run():
        graph.replay()
        torch.cuda.synchronize()

    return run


def _bench(benchmark, level: Level, path: str, step, name: str) -> None:
    inputs = tensors(level)
    run = graphed(step, path, inputs)
    benchmark.extra_info |= {"layers": level.layers, "device": torch.cuda.get_device_name() if GPU else "cpu"}
    if GPU:
        benchmark.extra_info["cudnn"] = torch.backends.cudnn.version()
    benchmark.pedantic(run, rounds=30 if GPU else 3, warmup_rounds=3 if GPU else 1)
    _measured.append({"level": level, "path": path, "pass": name, "median": benchmark.stats.stats.median})


@levels
@paths
def test_forward(benchmark, level, path):
    _bench(benchmark, level, path, forward, "forward")


@levels
@paths
def test_forward_backward(benchmark, level, path):
    _bench(benchmark, level, path, backward, "backward")


@pytest.mark.skipif(not GPU, reason="rows for choices.json need a CUDA device")
def test_rows_for_the_table():
    """Prints the rows: for each shape the faster of Triton and the SDPA that PyTorch picks by itself."""
    rows = []
    for level in LEVELS:
        for name in ("forward", "backward"):
            times = {m["path"]: m["median"] for m in _measured if m["level"] == level and m["pass"] == name}
            faster = min(("sdpa", "triton"), key=times.__getitem__)
            shape = {"n_queries": 4 * level.tokens, "n_keys": 4 * level.tokens, "n_ref": level.tokens, "head_dim": 64, "dtype": "bfloat16"}
            rows.append(shape | {"gradients": name == "backward", "backend": faster, "median_ms": {k: 1e3 * v for k, v in times.items()}})
    print(json.dumps({"measured": {"device": torch.cuda.get_device_name(), "torch": torch.__version__}, "rows": rows}, indent=2))
