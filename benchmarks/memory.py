"""Peak memory, measured in a process of its own: nothing that ran before has left blocks to reuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_RESET = Path("/proc/self/clear_refs")

needs_linux = pytest.mark.skipif(not _RESET.exists(), reason="the peak of a process can be started over on Linux only")


def start_over() -> float:
    """Forget the peak so far; returns what the process holds now, MiB."""
    _RESET.write_text("5")
    return _status("VmRSS")


def peak_mib() -> float:
    return _status("VmHWM")


def growth_mib(setup: str, measured: str, *arguments: object) -> float:
    """MiB by which `measured` lifts the peak over what is held after `setup`. Both are Python code; `arguments` are its sys.argv[1:]."""
    imports = "import sys\nfrom benchmarks.memory import peak_mib, start_over"
    code = "\n".join([imports, setup, "before = start_over()", measured, "print(peak_mib() - before)"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-1000:]}")
    return float(done.stdout)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
