"""ncu's table as what is committed: `python -m benchmarks.gpu.counters NCU.csv --out NCU.json`.

The table is what `ncu --csv --page details` prints, between the program's own lines: a line a metric. Kept are the figures that
documents read, of each kernel's last launch of a size: the earlier one was its first, with cold caches.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import Any

from benchmarks.gpu.facts import header
from gafcore.files import write_json

METRICS = (
    "Duration", "Elapsed Cycles", "SM Active Cycles", "DRAM Throughput", "L1/TEX Cache Throughput", "L2 Cache Throughput",
    "Compute (SM) Throughput", "Mem Busy", "L1/TEX Hit Rate", "Executed Ipc Active", "Issue Slots Busy", "Issued Warp Per Scheduler",
    "Eligible Warps Per Scheduler", "Warp Cycles Per Issued Instruction", "Avg. Active Threads Per Warp", "Registers Per Thread",
    "Waves Per SM", "Block Limit Registers", "Block Limit Shared Mem", "Theoretical Occupancy", "Achieved Occupancy",
)  # fmt: skip


def short(signature: str) -> str:
    """`blend_tiles<3>` of `void gaf::cuda::(anonymous namespace)::blend_tiles<(int)3>(gaf::cuda::BlendPass, bool)`."""
    found = re.search(r"(\w+)(<[^<>]*>)?\(", signature.replace("(anonymous namespace)", ""))
    return re.sub(r"\((?:int|bool)\)", "", f"{found[1]}{found[2] or ''}") if found else signature


def kernels(text: str) -> dict[str, dict[str, Any]]:
    """By kernel, grid and block: grid, block, and value and unit of each metric.

    Raises:
        ValueError: There is no table in the text; what ncu said instead is quoted.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if not lines or "Kernel Name" not in lines[0]:
        raise ValueError(f"no table of ncu in what it printed: {text.strip()[-300:]!r}")
    found: dict[str, dict[str, Any]] = {}
    launch_of: dict[str, str] = {}
    for r in csv.DictReader(lines):
        if r["Metric Name"] not in METRICS:
            continue
        key = f"{short(r['Kernel Name'])} {r['Grid Size']} {r['Block Size']}"
        if launch_of.get(key) != r["ID"]:
            launch_of[key], found[key] = r["ID"], {"grid": r["Grid Size"], "block": r["Block Size"]}
        found[key][r["Metric Name"]] = [float(r["Metric Value"].replace(",", "")), r["Metric Unit"]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = header("ncu") | {"tool": "ncu --clock-control none --set detailed, last launch of each kernel and size"}
    report |= {"kernels": kernels(args.table.read_text(encoding="utf-8", errors="replace")), "complete": True}
    write_json(args.out, report)
    print(f"wrote {args.out}: {len(report['kernels'])} kernels and sizes")


if __name__ == "__main__":
    main()
