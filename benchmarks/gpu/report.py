"""`python -m benchmarks.gpu.report FOLDER`: the JSON files of benchmarks/gpu.sh as one Markdown table, FOLDER/report.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gafcore.files import atomic_path, read_json

PARTS = ("build", "peers", "test", "sanitize", "ops", "rasterize", "scale", "profile", "attention", "diffusion", "fit")
FIGURES = ("name", "median_ms", "iqr_ms", "min_ms", "calls", "peak_mb", "gb_per_s", "bytes", "host_ms", "error")
FIGURES += ("frames_per_s", "frames_per_s_iqr")


def parts_table(folder: Path) -> list[str]:
    if not any(folder.glob("part_*.json")):
        return ["The suites were called by themselves, not as parts of benchmarks/gpu.sh."]
    lines = ["| part | outcome | seconds |", "|---|---|---|"]
    for part in PARTS:
        path = folder / f"part_{part}.json"
        if not path.exists():
            lines.append(f"| {part} | not run | |")
            continue
        found = read_json(path)
        lines.append(f"| {part} | {'passed' if found['exit_status'] == 0 else 'FAILED'} | {found['seconds']} |")
    return lines


def suite_table(report: dict[str, Any]) -> list[str]:
    copy = report["gpu"]["copy_gb_per_s"]
    lines = ["| benchmark | | median ms | IQR ms | peak MB | share of copy bandwidth | frames a second |", "|---|---|---|---|---|---|---|"]
    for r in report["results"]:
        facts = ", ".join(f"{k} {v}" for k, v in r.items() if k not in FIGURES)
        if "error" in r:
            lines.append(f"| {r['name']} | {facts} | failed: {r['error']} | | | | |")
            continue
        share = f"{100 * r['gb_per_s'] / copy:.0f} %" if "gb_per_s" in r else ""
        rate = f"{r['frames_per_s']:.0f} +- {r['frames_per_s_iqr']:.0f}" if "frames_per_s" in r else ""
        lines.append(f"| {r['name']} | {facts} | {r['median_ms']:.4f} | {r['iqr_ms']:.4f} | {r['peak_mb']:.1f} | {share} | {rate} |")
    return lines


def main() -> None:
    folder = Path(sys.argv[1])
    reports = [read_json(p) for p in (folder / f"{name}.json" for name in ("ops", "rasterize", "scale", "fit")) if p.exists()]
    lines = ["# Measured on a GPU", "", *parts_table(folder), ""]
    if reports:
        gpu, host = reports[0]["gpu"], reports[0]["machine"]
        lines += [f"{gpu['card']}, {gpu['nvidia_smi']}; copy {gpu['copy_gb_per_s']:.0f} GB/s;"]
        lines += [f"torch {host['versions']['torch']}, CUDA {gpu['torch_cuda']};"]
        lines += [f"{host['processor']}, {host['system']}; {reports[0]['date']}. Device time between two events around one call.", ""]
    for report in reports:
        lines += [f"## {report['suite']}", "", *suite_table(report), ""]
    for path in sorted(folder.glob("peers_left_out.txt")):
        lines += ["## Peers left out", "", *path.read_text(encoding="utf-8").splitlines(), ""]
    with atomic_path(folder / "report.md") as path:
        path.write_text("\n".join(lines), encoding="utf-8")
    print(f"wrote {folder / 'report.md'}")


if __name__ == "__main__":
    main()
