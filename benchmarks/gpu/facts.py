"""What every file of a run on a GPU carries: commit, date, machine, GPU, driver, versions, and which peers were there.

Imports nothing of gafcore that needs more than torch: a part of benchmarks/gpu.sh must not fail for a library that it does not use.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu.measure import copy_bandwidth, first_line
from gafcore.cli.machine import machine, version

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("triton", "diffusers")
PEERS = {"gsplat": "gsplat", "fused_ssim": "fused-ssim", "nvdiffrast": "nvdiffrast"}  # what is imported: the distribution


def commit(root: Path = ROOT) -> dict[str, object]:
    """`commit` and `dirty`: from GAFCORE_COMMIT, or a file COMMIT (for a copy without history), or git; None where nobody knows."""
    if named := os.environ.get("GAFCORE_COMMIT"):
        return {"commit": named, "dirty": None}
    if (root / "COMMIT").is_file():
        return {"commit": (root / "COMMIT").read_text(encoding="utf-8").strip(), "dirty": None}
    try:
        head = _output("git", "-C", str(root), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": bool(changed)}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine_and_peers() -> dict[str, Any]:
    """As `gafcore bench` has it, with the versions of what only these suites need, and of peers."""
    found = machine()
    return found | {"versions": found["versions"] | {name: version(name) for name in (*LIBRARIES, *PEERS.values())}}


def gpu_facts() -> dict[str, object]:
    """Card, driver, clocks and versions. The clocks of the query are those of an idle card; `clocks_max` bounds what it computes."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "nvidia_smi": _smi("name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit"),
        "clocks_max": _smi("clocks.max.sm,clocks.max.mem"),
        "torch_cuda": torch.version.cuda,
        "copy_gb_per_s": copy_bandwidth(),
    }


def _smi(query: str) -> str:
    try:
        return _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"nvidia-smi failed: {first_line(error)}"


@functools.cache
def _left_out() -> dict[str, str]:
    """Peers that benchmarks/gpu.sh could not build, and why: they are not tried again, for a build that hung once hangs again."""
    path = Path(os.environ.get("GAFCORE_PEERS_LEFT_OUT", os.devnull))
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split(": ", 1) for line in lines if ": " in line)


@functools.cache
def _peer(name: str) -> ModuleType | str:
    if name in _left_out():
        return f"left out: {_left_out()[name]}"
    if importlib.util.find_spec(name) is None:
        return "absent"
    try:
        return importlib.import_module(name)
    except Exception as error:
        return f"left out: its import says {first_line(error)}"


def peer(name: str) -> ModuleType | None:
    """The module of a peer, or None where it is absent or was left out; `header` says which."""
    found = _peer(name)
    return None if isinstance(found, str) else found


def peers() -> dict[str, str]:
    """For each peer its version, "absent", or why it was left out."""
    return {name: found if isinstance(found := _peer(name), str) else version(PEERS[name]) or "of no version" for name in PEERS}


def header(suite: str, *, with_peers: bool = False) -> dict[str, Any]:
    """The start of a suite's file. `complete` turns true when the suite has come to its end: what is cut off says so."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: torch sees no GPU; nothing was measured")
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    report: dict[str, Any] = {"suite": suite, "date": date, **commit(), "machine": machine_and_peers(), "gpu": gpu_facts()}
    if with_peers:
        report["peers"] = peers()
    return report | {"complete": False}
