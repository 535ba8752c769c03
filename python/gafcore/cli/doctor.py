"""`gafcore doctor`: what is installed, what was compiled, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch

from gafcore.cli.machine import CORE, machine, version
from gafcore.devices import cuda_missing
from gafcore.errors import MissingError
from gafcore.native import cuda_architectures, cuda_version, has_cuda, isa_name
from gafcore.tracking.models import find_models

# extra: (what it is for, {distribution: import name})
EXTRAS = {
    "track": ("gafcore track: landmarks and masks", {"mediapipe": "mediapipe", "opencv-contrib-python": "cv2"}),
    "metrics": ("an independent LPIPS to compare with", {"lpips": "lpips"}),
    "diffusion": (
        "the multi-view diffusion model and training a prior",
        {name: name for name in ("diffusers", "transformers", "accelerate", "triton", "webdataset")},
    ),
    "tensorboard": ("gafcore fit --tensorboard", {"tensorboard": "tensorboard"}),
    "bench": ("gafcore bench", {"pytest": "pytest", "pytest-benchmark": "pytest_benchmark"}),
    "test": (
        "the test suite",
        {"pytest": "pytest", "cmake": "cmake", "pytest-benchmark": "pytest_benchmark", "pytest-timeout": "pytest_timeout"}
        | {"pytest-xdist": "xdist", "hypothesis": "hypothesis", "beartype": "beartype", "scikit-image": "skimage"},
    ),
    "lint": ("make lint", {"ruff": "ruff", "mypy": "mypy", "import-linter": "importlinter"}),
}
# Every card that the kernels are compiled for in CI, in CMake's words: machine code for each, and PTX for later ones.
ALL_ARCHITECTURES = "80-real;86-real;89-real;90-real;100-real;120"
NVCC_PACKAGES = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
INSTALL = "pip install --no-cache-dir . -C cmake.define.GAF_CUDA=ON"


def importable(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of that name in the current one has no origin


def extra_line(extra: str) -> str:
    purpose, needs = EXTRAS[extra]
    missing = [d for d, module in needs.items() if not importable(module)]
    if not missing:
        return f"{extra}: ready ({', '.join(f'{d} {version(d)}' for d in needs)}); {purpose}"
    return f'{extra}: missing {", ".join(missing)}; needed for {purpose}; get it with: pip install "gafcore[{extra}]"'


def architectures_text(names: tuple[str, ...]) -> str:
    """CMake's names of architectures as a reader knows them: sm_80, sm_90, PTX of 90 for later cards."""
    if not all(name[:1].isdigit() for name in names):
        return ", ".join(names)  # such as all-major
    code = [f"sm_{name.removesuffix('-real')}" for name in names if not name.endswith("-virtual")]
    ptx = [f"PTX of {name.removesuffix('-virtual')} for later cards" for name in names if not name.endswith("-real")]
    return ", ".join(code + ptx)


def cuda_line() -> str:
    """Whether kernels run on a GPU here, and if not, what to do about it."""
    built = f"compiled with CUDA {cuda_version()} for {architectures_text(cuda_architectures())}" if has_cuda() else "none"
    if missing := cuda_missing():
        return f"CUDA kernels: {built}; everything runs on the CPU, because {missing}"
    return f"CUDA kernels: {built}, they run on " + ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def find_nvcc() -> str | None:
    """The compiler that an installation with this Python would take, as cmake/nvcc.cmake looks for it; None where there is none."""
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    wheels = [path for folder in folders for path in Path(folder).glob("nvidia/cu*/bin/nvcc")]
    newest = max(wheels, key=lambda path: (len(path.parts[-3]), path.parts[-3]), default=None)
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or (str(newest) if newest else None)


def nvcc_lines() -> list[str]:
    """The compiler here, or where to get one; and the commands that compile for this machine's cards and for all."""
    nvcc = find_nvcc()
    lines = [f"nvcc: {nvcc or 'none in CUDACXX, on PATH or among the packages of this Python'}"]
    if nvcc is None and not has_cuda():
        release = torch.version.cuda if int((torch.version.cuda or "0").split(".")[0]) >= 13 else "13.0"
        lines += [
            "  get it with a CUDA toolkit, 12 or later, for the whole machine: https://developer.nvidia.com/cuda-downloads",
            "  or in a conda environment: conda install -c nvidia cuda-toolkit",
            "  or for this Python alone, without root; the kernels then need a driver for CUDA 13: pip install "
            + " ".join(f'"{name}=={release}.*"' for name in NVCC_PACKAGES),
        ]
    return [
        *lines,
        f"  to compile for this machine's cards, in gafcore's source folder: {INSTALL}",
        f'  for all cards: {INSTALL} -C "cmake.define.GAF_CUDA_ARCHITECTURES={ALL_ARCHITECTURES}"',
    ]


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
        print("\n".join(nvcc_lines()))
        print("libraries: " + ", ".join(f"{name} {v or 'MISSING'}" for name, v in versions.items()))
        for extra in EXTRAS:
            print(extra_line(extra))
        print(models_line())
