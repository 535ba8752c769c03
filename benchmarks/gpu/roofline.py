"""Each kernel's share of what the card could do: `python -m benchmarks.gpu.roofline PROFILE.json [SIZES.json]`, as a Markdown table.

Times are measured (PROFILE.json, benchmarks/gpu/profile.py); bytes and instructions are counted (benchmarks/gpu/counts.py).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.counts import Sizes, count, kernel_name

SCHEDULERS = 4  # of a multiprocessor, each a warp instruction a cycle
MULTIPROCESSORS = {"NVIDIA H200": 132, "NVIDIA H100 80GB HBM3": 132}  # for files from before that was recorded


class Line(NamedTuple):
    kernel: str
    us: float
    n_bytes: int
    instructions: int | None


def lines(kernels: list[dict[str, Any]], sizes: Sizes) -> list[Line]:
    """The counted kernels of a case, longest first; kernels of the same line are added up."""
    found: dict[str, Line] = {}
    for k in kernels:
        if (counted := count(kernel_name(k["kernel"]), sizes)) is None:
            continue
        name, (n_bytes, instructions) = counted
        found[name] = Line(name, k["us"] + (found[name].us if name in found else 0.0), n_bytes, instructions)
    return sorted(found.values(), key=lambda line: -line.us)


def slots_per_us(gpu: dict[str, Any]) -> float | None:
    """Warp instructions that the card can issue in a microsecond: at its highest clock, or at the one that was read after the run."""
    clocks = re.findall(r"(\d+) MHz", gpu.get("clocks_max", "")) or re.findall(r"(\d+) MHz", gpu["nvidia_smi"])
    multiprocessors = gpu.get("multiprocessors") or MULTIPROCESSORS.get(gpu["card"])
    return SCHEDULERS * multiprocessors * float(clocks[0]) if clocks and multiprocessors else None


def table(report: dict[str, Any], sizes: dict[str, Sizes]) -> list[str]:
    gpu, slots = report["gpu"], slots_per_us(report["gpu"])
    out = ["| case | kernel | measured, us | counted, MB | share of copy bandwidth | share of issue slots |", "|---|---|---|---|---|---|"]
    for case, kernels in report["cases"].items():
        found = lines(kernels, sizes.get(case, {}))
        for i, line in enumerate(found):
            bandwidth = line.n_bytes / 1e3 / line.us / gpu["copy_gb_per_s"]
            issued = f"{100 * line.instructions / slots / line.us:.0f} %" if line.instructions and slots else ""
            figures = f"{line.us:.1f} | {line.n_bytes / 1e6:.2f} | {100 * bandwidth:.0f} % | {issued}"
            out.append(f"| {case if i == 0 else ''} | `{line.kernel}` | {figures} |")
        rest = sum(k["us"] for k in kernels) - sum(line.us for line in found)
        out.append(
            f"| | not counted: torch's, CUB's, fills and {len(uncounted(kernels, sizes.get(case, {})))} of ours | {rest:.1f} | | | |"
        )
    return out


def uncounted(kernels: list[dict[str, Any]], sizes: Sizes) -> list[str]:
    ours = [name for k in kernels if (name := kernel_name(k["kernel"]))]
    return [name for name in ours if count(name, sizes) is None]


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sizes = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))["sizes"] if len(sys.argv) > 2 else report.get("sizes", {})
    print("\n".join(table(report, sizes)))


if __name__ == "__main__":
    main()
