"""Where a frame's and a step's device time goes, kernel by kernel:
`python -m benchmarks.gpu.profile --out FILE.json [--once] [--only NAME]`.

`--once` runs every case twice and measures nothing: for ncu, which then sees each kernel warm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.cases import CASES
from benchmarks.gpu.facts import header
from benchmarks.gpu.measure import first_line
from gafcore.files import write_json

_RUNS = 20


def kernel_times(step: Callable[[], None]) -> list[dict[str, Any]]:
    """Device microseconds a run of each kernel, longest first."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
        for _ in range(_RUNS):
            step()
        torch.cuda.synchronize()
    rows = []
    for event in prof.key_averages():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            rows.append({"kernel": event.key[:160], "us": event.self_device_time_total / _RUNS, "launches": event.count / _RUNS})
    return sorted(rows, key=lambda r: -r["us"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    chosen = {name: make for name, make in CASES.items() if args.only in name}
    if args.once:
        for make in chosen.values():
            case = make()
            case.step()
            case.step()
        torch.cuda.synchronize()
        return
    report = header("profile") | {"cases": {}, "sizes": {}, "errors": {}}
    for name, make in chosen.items():
        try:
            case = make()
            report["cases"][name], report["sizes"][name] = kernel_times(case.step), case.sizes()
        except Exception as error:  # a case that lacks a library does not keep the others from running
            report["errors"][name] = first_line(error)
            print(f"\n{name}: {first_line(error)}", flush=True)
            continue
        print_case(name, report["cases"][name])
        if args.out:
            write_json(args.out, report)
    if args.out:
        write_json(args.out, report | {"complete": True})


def print_case(name: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}: {sum(r['us'] for r in rows):.1f} us of kernels")
    for r in rows[:24]:
        print(f"  {r['us']:8.2f} us {r['launches']:5.1f}x  {r['kernel'][:110]}", flush=True)


if __name__ == "__main__":
    main()
