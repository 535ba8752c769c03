"""Timing on a GPU: what one call takes on the device, measured with events, and how much memory it needs."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

BUDGET_S = 0.12  # of a row: time on a GPU is often rented by the minute


def times_ms(call: Callable[[], Any], *, budget_s: float = BUDGET_S, most: int = 200) -> list[float]:
    """Device time of single calls, milliseconds, after a warm-up; as many as fit the budget, at least ten.

    A call that the host cannot launch as fast as the device runs it is timed with the gaps; graph replays have none.
    """
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    n = max(10, min(most, int(budget_s / max(time.perf_counter() - start, 1e-6))))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def row(name: str, call: Callable[[], Any], *, n_bytes: float | None = None, **facts: object) -> dict[str, object]:
    """One line of a table. n_bytes: what the call must read and write at least, for its share of the memory bandwidth."""
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = times_ms(call)
        peak = torch.cuda.max_memory_allocated() - before
    except (RuntimeError, torch.OutOfMemoryError) as error:
        torch.cuda.empty_cache()
        return {"name": name, **facts, "error": str(error).splitlines()[0]}
    quarters = statistics.quantiles(found, n=4)
    result = {"name": name, **facts, "median_ms": statistics.median(found), "iqr_ms": quarters[2] - quarters[0], "min_ms": min(found)}
    result |= {"calls": len(found), "peak_mb": peak / 2**20}
    if n_bytes is not None:
        result |= {"gb_per_s": n_bytes / 1e6 / result["median_ms"], "bytes": n_bytes}
    print(
        f"{name:<40} {' '.join(f'{k}={v}' for k, v in facts.items()):<50} {result['median_ms']:9.4f} ms  +-{result['iqr_ms']:.4f}",
        flush=True,
    )
    return result


def replayed(call: Callable[[], Any]) -> Callable[[], None]:
    """`call` as a CUDA graph; raises RuntimeError where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def copy_bandwidth() -> float:
    """GB/s of a copy on the device, read and write counted: the bandwidth that shares are shares of."""
    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / 1e6 / statistics.median(times_ms(lambda: y.copy_(x), most=50))


def gpu_facts() -> dict[str, object]:
    """Card, driver, clocks and versions."""
    query = "name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit"
    smi = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True)
    return {
        "card": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "nvidia_smi": smi.stdout.strip() if smi.returncode == 0 else "nvidia-smi failed",
        "torch_cuda": torch.version.cuda,
        "copy_gb_per_s": copy_bandwidth(),
    }
