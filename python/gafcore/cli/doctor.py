"""`gafcore doctor`: what is installed, what was compiled, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass

import torch

import gafcore
from gafcore.devices import cuda_missing
from gafcore.errors import MissingError
from gafcore.native import compiler, cuda_version, has_cuda, isa_name
from gafcore.tracking.models import find_models

CORE = ("torch", "numpy", "safetensors", "pillow", "av", "plyfile", "scipy", "tyro", "rich", "jaxtyping")
# extra: (what it is for, {distribution: import name})
EXTRAS = {
    "track": ("gafcore track: landmarks and masks", {"mediapipe": "mediapipe"}),
    "metrics": ("an independent LPIPS to compare with", {"lpips": "lpips"}),
    "tensorboard": ("gafcore fit --tensorboard", {"tensorboard": "tensorboard"}),
    "bench": ("gafcore bench", {"pytest": "pytest", "pytest-benchmark": "pytest_benchmark"}),
    "test": ("the test suite", {"pytest": "pytest", "hypothesis": "hypothesis", "beartype": "beartype", "scikit-image": "skimage"}),
}


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


def machine() -> dict[str, object]:
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


def extra_line(extra: str) -> str:
    purpose, needs = EXTRAS[extra]
    missing = [d for d, module in needs.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return f"{extra}: ready ({', '.join(f'{d} {version(d)}' for d in needs)}); {purpose}"
    return f'{extra}: missing {", ".join(missing)}; needed for {purpose}; get it with: pip install "gafcore[{extra}]"'


def cuda_line() -> str:
    """Whether kernels run on a GPU here, and if not, what to do about it."""
    built = f"compiled with CUDA {cuda_version()}" if has_cuda() else "none"
    if missing := cuda_missing():
        return f"CUDA kernels: {built}; everything runs on the CPU, because {missing}"
    return f"CUDA kernels: {built}, they run on " + ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def models_line() -> str:
    try:
        return f"tracking models: ready in {find_models().face.parent}"
    except MissingError as error:
        return f"tracking models: missing; {error}"


@dataclass(frozen=True)
class Doctor:
    """Print versions, what was compiled, the instruction set in use, threads, and what is missing for each extra."""

    def run(self) -> None:
        facts, versions = machine(), {name: version(name) for name in CORE}
        print(f"gafcore {facts['gafcore']} on Python {facts['python']}, {facts['system']}")
        print(f"processor: {facts['processor']}, {facts['cores']} cores, {facts['threads']} in use (torch.set_num_threads changes it)")
        print(f"kernels: built with {facts['compiler']}; instruction set {isa_name()} (GAFCORE_ISA=avx2|baseline lowers it)")
        print(cuda_line())
        print("libraries: " + ", ".join(f"{name} {v or 'MISSING'}" for name, v in versions.items()))
        for extra in EXTRAS:
            print(extra_line(extra))
        print(models_line())
