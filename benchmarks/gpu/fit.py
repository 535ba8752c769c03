"""A whole fit on a GPU: `python -m benchmarks.gpu.fit --out FILE.json [--iterations 6000]`.

The demo's person at 512x512, made on the CPU first (some of the time goes there, and is given apart). Then the fit as `gafcore fit` does it
without a prior: with CUDA graphs to the end, and the first iterations with and without them. Goal: 6,000 iterations in 30 seconds. Then the
first iterations with the small prior, whose network is asked on the same device.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.facts import header
from benchmarks.gpu.measure import failed
from gafcore.captures.synthetic import SynthConfig, make
from gafcore.evaluation import evaluate
from gafcore.files import write_json
from gafcore.fitting import Execution, FitConfig, Prior, fit, make_prior
from gafcore.types import Capture

BLOCK = 100  # iterations between two events on the device
COMPARED = 1200  # iterations of the fits that are compared with and without graphs


def person(size: int, timesteps: int) -> Capture:
    """The demo's person, all pictures made: `timesteps` from the front train, and the other cameras show one moment of them."""
    capture = make(SynthConfig(size=size, n_timesteps=timesteps * 5 // 4, eval_timesteps=1, seed=5)).capture
    used = [*capture.splits["train"], *capture.splits["novel_view"]]
    capture = replace(capture, splits={name: capture.splits[name] for name in ("train", "novel_view")})
    threads = torch.get_num_threads()
    # Pictures beside each other, a thread each: much of a picture is single ops on small tensors.
    with ThreadPoolExecutor(os.cpu_count(), initializer=lambda: torch.set_num_threads(1)) as pool:
        list(pool.map(lambda i: capture.frames[i].image(), used))
    torch.set_num_threads(threads)
    return capture


def name_of(graph: bool, prior: Prior | None) -> str:
    return f"fit{'' if prior is None else ' with the small prior'}, {'graphs' if graph else 'kernels launched one by one'}"


def measured(capture: Capture, config: FitConfig, prior: Prior | None, graph: bool, quality: bool) -> dict[str, Any]:
    """A row: the fit's own wall-clock seconds, the device's milliseconds an iteration in blocks, memory, and how good the avatar is."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    events: list[torch.cuda.Event] = []

    def mark(iteration: int, _: object) -> None:
        if iteration % BLOCK == 0:
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()

    begin = time.perf_counter()
    result = fit(capture, config, prior=prior, progress=False, callback=mark, execution=Execution(device="cuda", graph=graph))
    wall = time.perf_counter() - begin
    torch.cuda.synchronize()
    ms = [a.elapsed_time(b) / BLOCK for a, b in pairwise(events)]
    quarters = statistics.quantiles(ms, n=4)
    seconds = result.seconds["total"]
    row: dict[str, Any] = {
        "name": name_of(graph, prior),
        "iterations": result.iterations,
        "seconds": round(seconds, 3),
        "start_seconds": round(wall - seconds, 3),
        "it_per_s": round(result.iterations / seconds, 1),
        "gaussians": len(result.avatar),
        "median_ms": statistics.median(ms),
        "iqr_ms": quarters[2] - quarters[0],
        "min_ms": min(ms),
        "calls": len(ms),
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20,
        "loss_at_100": round(result.history["loss"][9], 6),
        "host_ms": {k: round(1e3 * v / result.iterations, 4) for k, v in result.seconds.items()},
    }
    if quality:
        scores = evaluate(result.avatar, capture, max_frames=16, samples=0, progress=False)
        row |= {f"{split}_psnr": round(scores.mean(split)["psnr"], 2) for split in scores.splits}
    print(", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--timesteps", type=int, default=24)
    parser.add_argument("--graphs-only", action="store_true", help="leave out the kernels launched one by one: a quarter of a minute")
    args = parser.parse_args()
    report = header("fit") | {"results": []}
    begin = time.perf_counter()
    capture = person(args.size, args.timesteps)
    report["capture_seconds"] = round(time.perf_counter() - begin, 1)
    print(
        f"capture: {len(capture.splits['train'])} training pictures of {args.size}x{args.size} in {report['capture_seconds']} s", flush=True
    )
    whole, part = FitConfig(iterations=args.iterations), FitConfig(iterations=min(COMPARED, args.iterations))
    small = make_prior("small")
    # The short ones first: they also warm up, and leave something should the run be cut off.
    runs = [
        (part, None, False, False),
        (part, None, True, False),
        (whole, None, True, True),
        (part, small, True, False),
        (part, small, False, False),
    ]
    for config, prior, graph, quality in runs:
        if args.graphs_only and not graph:
            continue
        try:
            row = measured(capture, config, prior, graph, quality)
        except Exception as error:
            row = failed(name_of(graph, prior), error, iterations=config.iterations)
        report["results"].append(row)
        write_json(args.out, report)
    write_json(args.out, report | {"complete": True})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
