"""`gafcore bench [SUITE]`: runs the benchmark suites, prints a table, writes JSON with the machine and versions beside the figures."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gafcore.cli.machine import machine
from gafcore.devices import DeviceName, resolve
from gafcore.errors import GafError, InputError, MissingError
from gafcore.files import read_json, write_json

_NOTHING_SELECTED = 5  # pytest's exit code


def available(folder: Path) -> dict[str, Path]:
    """Suite names and files: `benchmarks/bench_<suite>.py`."""
    return {p.stem.removeprefix("bench_"): p for p in sorted(folder.glob("bench_*.py"))}


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a benchmark, milliseconds, from pytest-benchmark's JSON."""
    result = []
    for b in report["benchmarks"]:
        stats = b["stats"]
        row = {"name": re.sub(r"^(test|bench)_", "", b["name"]), "group": b["group"] or "", "rounds": stats["rounds"]}
        row |= {"median_ms": 1e3 * stats["median"], "iqr_ms": 1e3 * stats["iqr"], "min_ms": 1e3 * stats["min"]}
        result.append(row | {"extra": b["extra_info"]})
    return result


def print_table(title: str, figures: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for column in ("benchmark", "median ms", "IQR ms", "min ms", "rounds", "more"):
        table.add_column(column, justify="left" if column in ("benchmark", "more") else "right")
    for r in figures:
        more = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in r["extra"].items())
        table.add_row(
            escape(r["name"]), f"{r['median_ms']:.2f}", f"{r['iqr_ms']:.2f}", f"{r['min_ms']:.2f}", str(r["rounds"]), escape(more)
        )
    Console(width=160 if not sys.stdout.isatty() else None).print(table)


@dataclass(frozen=True)
class Bench:
    """Run benchmark suites from a source checkout and write the figures as JSON."""

    suite: Annotated[str, tyro.conf.Positional] = "all"
    """Which suite: the part after bench_ in benchmarks/bench_*.py, or all."""
    benchmarks: Path = Path("benchmarks")
    """The folder with the suites, in a checkout of the sources."""
    out: Path = Path("out/bench")
    """Folder for the JSON files, one a suite."""
    select: str = ""
    """Only benchmarks whose name matches (pytest's -k)."""
    device: DeviceName = "auto"
    """Where kernels run: cpu, cuda, or auto: on the CPU, and on the GPU as well where there is one that they run on."""

    def run(self) -> None:
        if importlib.util.find_spec("pytest_benchmark") is None:
            raise MissingError('benchmarks need pytest-benchmark; get it with: pip install "gafcore[bench]"')
        suites = available(self.benchmarks)
        if not suites:
            raise MissingError(f"no bench_*.py in {self.benchmarks}; run `gafcore bench` from a source checkout or give --benchmarks DIR")
        if self.suite != "all" and self.suite not in suites:
            raise InputError(f"no suite {self.suite!r}; there are: all, {', '.join(suites)}")
        resolve(self.device)
        failed = []
        for name in suites if self.suite == "all" else [self.suite]:
            try:
                figures, left_out = self.measure(suites[name])
            except GafError as error:  # the other suites are still worth their time
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
                continue
            print_table(name, figures)
            for reason in left_out:
                print(f"left out: {reason}")
            stamp = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            path = self.out / f"{name}.json"
            report = {"suite": name, "date": stamp, "machine": machine(), "results": figures}
            write_json(path, {**report, "left_out": left_out} if left_out else report)
            print(f"wrote {path}")
        if failed:
            raise GafError(f"not measured: {', '.join(failed)}")

    def measure(self, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
        """The figures of a suite, and which benchmarks were skipped and why."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = [sys.executable, "-m", "pytest", str(path), "-q", "-rs", "--benchmark-only", "-p", "no:cacheprovider"]
            command += [f"--benchmark-json={report}", *(["-k", self.select] if self.select else [])]
            environment = {**os.environ, "GAFCORE_BENCH_DEVICE": self.device}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode == _NOTHING_SELECTED and self.select:
                return [], []
            if done.returncode != 0 or not report.exists():
                raise GafError(f"{path} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            try:
                return rows(read_json(report)), re.findall(r"^SKIPPED (\[\d+\] .*)$", done.stdout, re.MULTILINE)
            except (KeyError, InputError) as error:
                raise GafError(f"{path}: pytest-benchmark's report could not be read ({error!r})") from error
