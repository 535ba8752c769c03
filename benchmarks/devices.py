"""Which devices a suite of `gafcore bench` runs on, and how a call is timed on each."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.measure import events_ms
from gafcore.devices import resolve

VARIABLE = "GAFCORE_BENCH_DEVICE"  # what --device says: auto, cpu or cuda
_EVENTS = 20  # calls whose device time is taken


def chosen() -> list[str]:
    """The CPU, and the GPU where there is one that gafcore's kernels run on; or the one that was asked for."""
    asked = os.environ.get(VARIABLE, "auto")
    return list(dict.fromkeys(["cpu", resolve().type])) if asked == "auto" else [resolve(asked).type]


DEVICES = chosen()
BEST = DEVICES[-1]  # for suites that run once
devices = pytest.mark.parametrize("device", DEVICES)


def moved(value: Any, device: str) -> Any:
    """Tensors to the device, also those in tuples, lists and dictionaries, as new leaves; everything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().to(device).requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {k: moved(v, device) for k, v in value.items()}
    return type(value)(moved(v, device) for v in value) if type(value) in (list, tuple) else value


def timed(benchmark: Any, device: str, call: Callable[..., Any], *args: Any, rounds: int = 0, warmup_rounds: int = 1) -> Any:
    """`call(*args)` by pytest-benchmark, which times what a caller waits for: on a GPU until it is done.

    The device's own time, between two events around a call, goes beside it as `device_ms`. Without `rounds` pytest-benchmark chooses how
    many. Returns what the call returned.
    """
    if device == "cpu":
        waited = call
    else:

        def waited(*args: Any) -> Any:
            result = call(*args)
            torch.cuda.synchronize()
            return result

    fixed = dict(rounds=rounds, warmup_rounds=warmup_rounds)
    result = benchmark.pedantic(waited, args, **fixed) if rounds else benchmark(waited, *args)
    benchmark.extra_info["device"] = device
    if device != "cpu":
        benchmark.extra_info["device_ms"] = statistics.median(events_ms(lambda: call(*args), _EVENTS))
    return result
