"""`python -m benchmarks.gpu.report FOLDER`: the files of a run of benchmarks/gpu.sh as tables, FOLDER/report.md.

The standard library alone: it must also say that gafcore could not be built.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu import roofline

Report = dict[str, Any]
PARTS = (
    "deps",
    "build",
    "peers",
    "test",
    "memcheck",
    "racecheck",
    "initcheck",
    "synccheck",
    "ops",
    "rasterize",
    "scale",
    "fit",
    "profile",
    "ncu",
)
PARTS += ("attention", "diffusion")
FIGURES = (
    "name",
    "median_ms",
    "iqr_ms",
    "min_ms",
    "calls",
    "peak_mb",
    "gb_per_s",
    "bytes",
    "error",
    "frames_per_s",
    "frames_per_s_iqr",
    "graph",
)
COUNTERS = ("Duration", "Compute (SM) Throughput", "Issue Slots Busy", "DRAM Throughput", "L2 Cache Throughput", "Achieved Occupancy")
COUNTERS += ("Registers Per Thread",)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def table(columns: tuple[str, ...], rows: list[list[object]]) -> list[str]:
    return [_line(columns), "|" + "---|" * len(columns), *map(_line, rows), ""]


def _line(cells: tuple[str, ...] | list[object]) -> str:
    return f"| {' | '.join('' if c is None else str(c) for c in cells)} |"


def header(name: str, report: Report) -> list[str]:
    """What this file was measured on: each has its own, for files of several runs may lie in one folder."""
    gpu, host = report.get("gpu", {}), report.get("machine", {})
    dirty = {True: ", with changes", False: ""}.get(report.get("dirty"), "")
    said = [f"commit {str(report['commit'])[:12]}{dirty}" if report.get("commit") else "commit not recorded", report.get("date")]
    said += [gpu.get("nvidia_smi") or report.get("card") or report.get("device")]
    said += [f"copy {gpu['copy_gb_per_s']:.0f} GB/s" if "copy_gb_per_s" in gpu else None]
    versions = host.get("versions", {"torch": report.get("torch")})
    said += [f"torch {versions['torch']}" if versions.get("torch") else None, f"CUDA {gpu['torch_cuda']}" if "torch_cuda" in gpu else None]
    said += [host.get("processor"), host.get("system")]
    lines = [f"`{name}`: " + "; ".join(str(s) for s in said if s) + "."]
    if "peers" in report:
        lines.append("Peers: " + ", ".join(f"{peer} {state}" for peer, state in report["peers"].items()) + ".")
    if report.get("complete") is False:
        lines.append("**Cut off: these are the rows until then.**")
    return [*lines, ""]


def parts(folder: Path) -> list[str]:
    if not any(folder.glob("part_*.json")):
        return ["The suites were called by themselves, not as parts of benchmarks/gpu.sh.", ""]
    rows: list[list[object]] = []
    for part in PARTS:
        path = folder / f"part_{part}.json"
        found = read_json(path) if path.exists() else {"outcome": "not run"}
        rows.append([part, found["outcome"], found.get("seconds"), found.get("why")])
    return table(("part", "outcome", "seconds", "why"), rows)


def tests(folder: Path) -> list[str]:
    log = folder / "test.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    counts = [line.strip("= ") for line in lines if re.search(r"\d+ (passed|failed|errors?)\b.* in [\d.]+ ?s", line)]
    return ["## Tests", "", f"`pytest -m gpu`: {counts[-1]}.", ""] if counts else []


def sanitizers(folder: Path) -> list[str]:
    found = [read_json(p) for p in sorted(folder.glob("sanitize*.json"))]
    rows: list[list[object]] = []
    for r in (r for f in found for r in (f if isinstance(f, list) else [f])):
        said = "nothing found" if r["exit_status"] == 0 else f"exit status {r['exit_status']}"
        rows.append([r["tool"], said, r.get("summary"), str(r.get("commit") or "")[:12], r.get("date")])
    return ["## compute-sanitizer", "", *table(("tool", "outcome", "summary", "commit", "date"), rows)] if rows else []


# ---- suites


def pairs(rows: list[Report]) -> Iterator[tuple[str, str, Report | None, Report | None]]:
    """Name, facts, and the rows as called and as replayed, which stand beside each other."""
    found: dict[tuple[str, str], list[Report | None]] = {}
    for r in rows:
        replayed = r["name"].endswith(", replayed") or r.get("graph") is True
        name = r["name"].removesuffix(", replayed")
        facts = ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items() if k not in FIGURES)
        found.setdefault((name, facts), [None, None])[replayed] = r
    for (name, facts), (called, replayed) in found.items():
        yield name, facts, called, replayed


def both(called: Report | None, replayed: Report | None, show: Callable[[Report], str]) -> str:
    """`show` of both, "called / replayed"; a dash where one has nothing to show."""
    shown = [show(r) if r and "error" not in r else "" for r in (called, replayed)]
    return "" if not any(shown) else " / ".join(s or "-" for s in shown) if replayed else shown[0]


def milliseconds(r: Report | None) -> str:
    if r is None:
        return ""
    return f"failed: {r['error']}" if "error" in r else f"{r['median_ms']:.4f} +- {r['iqr_ms']:.4f}"


def rate(r: Report) -> str:
    if "frames_per_s" in r:
        return f"{r['frames_per_s']:.0f} +- {r['frames_per_s_iqr']:.0f} frames"
    if r["name"].startswith(("training step", "frame")):
        return f"{1000 / r['median_ms']:.0f} {'it' if r['name'].startswith('training') else 'frames'}"
    return ""


def suite(report: Report) -> list[str]:
    copy = report["gpu"]["copy_gb_per_s"]
    memory = lambda r: "" if r.get("peak_mb") is None else f"{r['peak_mb']:.1f}"  # noqa: E731
    share = lambda r: f"{100 * r['gb_per_s'] / copy:.0f} %" if "gb_per_s" in r else ""  # noqa: E731
    rows: list[list[object]] = []
    for name, facts, called, replayed in pairs(report["results"]):
        figures = [both(called, replayed, show) for show in (memory, share, rate)]
        rows.append([name, facts, milliseconds(called), milliseconds(replayed), *figures])
    return table(("benchmark", "", "called, ms", "replayed, ms", "peak MB", "share of copy bandwidth", "a second"), rows)


def fit(report: Report) -> list[str]:
    columns = ("fit", "iterations", "seconds", "it/s", "Gaussians", "ms an iteration", "peak MB", "PSNR")
    rows: list[list[object]] = []
    for r in report["results"]:
        if "error" in r:
            rows.append([r["name"], f"failed: {r['error']}"])
            continue
        scores = ", ".join(f"{k.removesuffix('_psnr')} {v}" for k, v in r.items() if k.endswith("_psnr"))
        ms = f"{r['median_ms']:.3f} +- {r['iqr_ms']:.3f}"
        rows.append([r["name"], r["iterations"], r["seconds"], r["it_per_s"], r["gaussians"], ms, f"{r['peak_mb']:.0f}", scores])
    return table(columns, rows)


def profile(report: Report, sizes: Report) -> list[str]:
    rows: list[list[object]] = []
    for case, kernels in report["cases"].items():
        longest = ", ".join(f"{roofline.kernel_name(k['kernel']) or 'torch or CUB'} {k['us']:.0f}" for k in kernels[:5])
        rows.append([case, f"{sum(k['us'] for k in kernels):.0f}", len(kernels), longest])
    rows += [[case, "", "", f"failed: {why}"] for case, why in report.get("errors", {}).items()]
    lines = table(("case", "us of kernels", "kernels", "the longest, us"), rows)
    return [
        *lines,
        "Bytes and instructions are counted, times measured (docs/kernels/roofline.md).",
        "",
        *roofline.table(report, sizes),
        "",
    ]


def counters(report: Report) -> list[str]:
    rows = [[k, *(" ".join(str(x) for x in v[c]) if c in v else "" for c in COUNTERS)] for k, v in report["kernels"].items()]
    return table(("kernel", *COUNTERS), rows)


def attention(report: Report) -> list[str]:
    rows = [[r["pass"], r["level"], r["path"], r["layers"], f"{r['median_ms']:.4f} +- {r['iqr_ms']:.4f}"] for r in report["results"]]
    return table(("pass", "level", "path", "calls a UNet", "replayed, ms"), rows)


def diffusion(report: Report) -> list[str]:
    rows: list[list[object]] = []
    for r in report["results"]:
        facts = ", ".join(f"{k} {v}" for k, v in r.items() if k not in ("name", "median_s", "spread_s", "peak_gb", "runs", "error"))
        figures = [f"failed: {r['error']}"] if "error" in r else [f"{r['median_s']:.3f} +- {r['spread_s']:.3f}", f"{r['peak_gb']:.1f}"]
        rows.append([r["name"], facts, *figures])
    return table(("benchmark", "", "seconds, and from least to most", "peak GiB"), rows)


TABLES: dict[str, Callable[[Report], list[str]]] = {
    "ops": suite,
    "rasterize": suite,
    "scale": suite,
    "fit": fit,
    "ncu": counters,
    "attention": attention,
    "diffusion": diffusion,
}


def made(folder: Path) -> list[str]:
    """The report's lines."""
    lines = ["# Measured on a GPU", "", *parts(folder)]
    lines += [
        "Milliseconds are the device's between two events around one call, median +- interquartile range: called from Python, where gaps"
    ]
    lines += ["between launches count, and replayed as a CUDA graph.", ""]
    lines += [*tests(folder), *sanitizers(folder)]
    for name in ("ops", "rasterize", "scale", "fit", "profile", "ncu", "attention", "diffusion"):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        report = read_json(path)
        lines += [f"## {name}", "", *header(path.name, report)]
        lines += profile(report, sizes_of(folder, report)) if name == "profile" else TABLES[name](report)
    left_out = folder / "peers_left_out.txt"
    if left_out.exists():
        lines += ["## Peers left out", "", *(f"- {line}" for line in left_out.read_text(encoding="utf-8").splitlines()), ""]
    return lines


def sizes_of(folder: Path, report: Report) -> Report:
    """Those that the profile recorded, or for one from before it did, those counted afterwards."""
    path = folder / "profile_sizes.json"
    return report.get("sizes") or (read_json(path)["sizes"] if path.exists() else {})


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "report.md").write_text("\n".join(made(folder)), encoding="utf-8")
    print(f"wrote {folder / 'report.md'}")


if __name__ == "__main__":
    main()
