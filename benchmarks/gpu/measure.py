"""Timing on a GPU: what one call takes on the device, measured with events, and how much memory it needs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

BUDGET_S = float(os.environ.get("BUDGET_S", "0.12"))  # of a row: time on a GPU is often rented by the minute
Row = dict[str, Any]


def first_line(error: BaseException) -> str:
    """What went wrong, on one line; assertions of peers often say nothing, so their kind is said as well."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def events_ms(call: Callable[[], Any], n: int) -> list[float]:
    """Device time of n single calls, milliseconds; gaps that the host leaves between launches count."""
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def times_ms(call: Callable[[], Any], *, budget_s: float | None = None, most: int = 200) -> list[float]:
    """Device time of single calls, milliseconds, after a warm-up; as many as fit the budget, at least ten.

    A call that the host cannot launch as fast as the device runs it is timed with the gaps; graph replays have none.
    """
    budget_s = BUDGET_S if budget_s is None else budget_s
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return events_ms(call, max(10, min(most, int(budget_s / max(time.perf_counter() - start, 1e-6)))))


class Memory:
    """The device's memory from now on. What a CUDA graph needs is allocated while it is captured, so begin before that."""

    def __init__(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    def peak_mb(self) -> float:
        return (torch.cuda.max_memory_allocated() - self.before) / 2**20


def row(name: str, call: Callable[[], Any], *, n_bytes: float | None = None, memory: Memory | None = None, **facts: object) -> Row:
    """One line of a table. A call that fails, whatever with, is a line that says so: peers have assertions and errors of their own.

    Args:
        n_bytes: What the call must read and write at least, for its share of the memory bandwidth.
        memory: Begun before what `call` keeps was allocated; by default what is allocated now counts as given.
    """
    try:
        memory = memory or Memory()
        found = times_ms(call)
        peak_mb = memory.peak_mb()
    except Exception as error:
        return failed(name, error, **facts)
    quarters = statistics.quantiles(found, n=4)
    result = {"name": name, **facts, "median_ms": statistics.median(found), "iqr_ms": quarters[2] - quarters[0], "min_ms": min(found)}
    result |= {"calls": len(found), "peak_mb": peak_mb}
    if n_bytes is not None:
        result |= {"gb_per_s": n_bytes / 1e6 / result["median_ms"], "bytes": n_bytes}
    print(
        f"{name:<40} {' '.join(f'{k}={v}' for k, v in facts.items()):<50} {result['median_ms']:9.4f} ms  +-{result['iqr_ms']:.4f}",
        flush=True,
    )
    return result


def failed(name: str, error: BaseException, **facts: object) -> Row:
    print(f"{name:<40} {' '.join(f'{k}={v}' for k, v in facts.items()):<50} failed: {first_line(error)}", flush=True)
    return {"name": name, **facts, "error": first_line(error)}


def replayed_row(name: str, call: Callable[[], Any], *, n_bytes: float | None = None, **facts: object) -> Row:
    """The row of `call` as a CUDA graph; memory counts what the graph keeps."""
    try:
        memory = Memory()
        return row(f"{name}, replayed", replayed(call), n_bytes=n_bytes, memory=memory, **facts)
    except Exception as error:
        return failed(f"{name}, replayed", error, **facts)


def called_and_replayed(name: str, call: Callable[[], Any], *, n_bytes: float | None = None, **facts: object) -> list[Row]:
    """A row as it is called from Python, and one of its CUDA graph."""
    return [row(name, call, n_bytes=n_bytes, **facts), replayed_row(name, call, n_bytes=n_bytes, **facts)]


def replayed(call: Callable[[], Any]) -> Callable[[], None]:
    """`call` as a CUDA graph; raises RuntimeError where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    current = torch.cuda.current_stream()
    current.wait_stream(side)
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.graph(graph, pool=pool):
            call()
    except BaseException:
        _give_up_capture(current, pool)
        raise
    return graph.replay


def _give_up_capture(current: torch.cuda.Stream, pool: tuple[int, int]) -> None:
    """After a capture that failed, torch may stay on its stream and believe that it is still capturing, and then every later row fails."""
    torch.cuda.set_stream(current)
    with suppress(Exception):  # not all versions of torch have it, and some have done it
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)


def backward(call: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    """A step: `call`, and its gradients for `leaves`, which are given back at once: the next row's memory begins without them."""

    def step() -> None:
        call().backward()
        for x in leaves:
            x.grad = None

    return step


def copy_bandwidth() -> float:
    """GB/s of a copy on the device, read and write counted: the bandwidth that shares are shares of."""
    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / 1e6 / statistics.median(times_ms(lambda: y.copy_(x), most=50))
