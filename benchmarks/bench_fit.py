"""The first iterations of a fit, by capture size. The yardstick is GAF's budget: 6,000 iterations in four minutes are 40 ms each.
On a GPU where there is one that gafcore can use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.devices import BEST
from gafcore.captures.synthetic import SynthConfig, make
from gafcore.fitting import Execution, FitConfig, fit
from gafcore.types import Capture

ITERATIONS = 30


@pytest.fixture(scope="module", params=[256, 512])
def capture(request) -> Capture:
    """Eight frames of a synthetic person, rendered once."""
    made = make(SynthConfig(size=request.param, n_timesteps=10, samples=1)).capture
    numbers = made.splits["train"]
    frames = list(made.frames)
    for i in numbers:
        image, mask = frames[i].image(), frames[i].mask()
        frames[i] = replace(frames[i], image=lambda x=image: x, mask=lambda x=mask: x)
    return replace(made, frames=tuple(frames), splits={"train": numbers})


@pytest.mark.benchmark(group=f"fit: {ITERATIONS} iterations from the first Gaussian on, start included")
def test_first_iterations(benchmark, capture):
    """The time is that of all of it; the stages of one iteration are listed beside them."""
    results = []

    def run() -> None:
        results.append(fit(capture, FitConfig(iterations=ITERATIONS), progress=False, execution=Execution(device=BEST)))

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    last = results[-1]
    benchmark.extra_info.update({f"{name} ms": 1e3 * seconds / ITERATIONS for name, seconds in last.seconds.items()})
    benchmark.extra_info["it/s"] = ITERATIONS / last.seconds["total"]
    benchmark.extra_info["gaussians"] = len(last.avatar)
    benchmark.extra_info["device"] = BEST
