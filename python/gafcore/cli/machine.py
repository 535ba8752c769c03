"""The machine that something runs on, as `gafcore doctor` prints it and every file of figures carries it. Needs torch alone."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

import gafcore
from gafcore.native import compiler, cuda_version, isa_name

CORE = ("torch", "numpy", "safetensors", "pillow", "av", "plyfile", "scipy", "tyro", "rich", "jaxtyping")


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What a measurement depends on: processor, threads, versions. Benchmarks write it beside their figures."""
    return {
        "gafcore": gafcore.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": isa_name(),
        "compiler": compiler(),
        "cuda_compiled": cuda_version(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": {name: version(name) for name in CORE},
    }
