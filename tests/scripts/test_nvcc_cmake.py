"""cmake/nvcc.cmake: which nvcc is taken, and for which cards it compiles, beside programs that stand in for nvcc and nvidia-smi."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

CMAKE = shutil.which("cmake", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}") or "cmake"  # in the extra `test`
FUNCTIONS = Path(__file__).resolve().parents[2] / "cmake" / "nvcc.cmake"


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def called(tmp_path: Path, call: str, on_path: Path, **environment: str) -> str:
    """What a function of nvcc.cmake leaves in `result`, with one folder on PATH."""
    script = tmp_path / "call.cmake"
    script.write_text(f'include("{FUNCTIONS}")\n{call}\nmessage("${{result}}")\n')
    command = [CMAKE, "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF", "-P", script]
    kept = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "PATH")}
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, "PATH": str(on_path), **environment}, check=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("cards", "architectures"),
    [
        ("echo 9.0", "90"),
        ("echo 8.6; echo 8.6", "86"),
        ("echo 12.0; echo 8.6; echo 12.0; echo 9.0", "86-real;90-real;120"),
        ("exit 9", "80"),
        ("echo '[N/A]'", "80"),
    ],
    ids=["one", "two-of-a-kind", "mixed", "no-driver", "unknown"],
)
def test_every_kind_of_card_here_is_compiled_for(tmp_path, cards, architectures):
    program(tmp_path / "nvidia-smi", cards)
    nvcc = program(tmp_path / "nvcc", "echo sm_80; echo sm_86; echo sm_90; echo sm_120")
    assert called(tmp_path, f"gaf_default_architectures({nvcc} result)", tmp_path) == f"{architectures}\n"


def test_cards_that_nvcc_does_not_know_are_left_out_and_named(tmp_path):
    program(tmp_path / "nvidia-smi", "echo 6.1; echo 9.0; echo 1.2")
    nvcc = program(tmp_path / "nvcc", "echo sm_90; echo sm_120")
    said = called(tmp_path, f"gaf_default_architectures({nvcc} result)", tmp_path).splitlines()
    assert [line.split()[-1] for line in said if "does not know" in line] == ["6.1", "1.2"]
    assert said[-1] == "90"


def test_without_nvidia_smi_one_architecture_serves_all(tmp_path):
    assert called(tmp_path, f"gaf_default_architectures({program(tmp_path / 'nvcc')} result)", tmp_path) == "80\n"


def test_nvcc_is_that_of_the_environment_then_of_path_then_the_newest_of_wheels(tmp_path):
    wheels = [program(tmp_path / "site" / "nvidia" / f"cu{n}" / "bin" / "nvcc") for n in (9, 13)]
    on_path, empty, none = program(tmp_path / "bin" / "nvcc"), tmp_path / "empty", tmp_path / "none"
    call = f"gaf_find_nvcc(result {none} {tmp_path / 'site'})"
    assert called(tmp_path, call, on_path.parent, CUDACXX="/opt/mine") == "/opt/mine\n"
    assert called(tmp_path, call, on_path.parent) == f"{on_path}\n"
    assert called(tmp_path, call, empty) == f"{wheels[1]}\n"
    assert called(tmp_path, f"gaf_find_nvcc(result {none})", empty) == "\n"


@pytest.mark.parametrize("toolkit", [False, True])
def test_the_runtime_of_wheels_is_named(tmp_path, toolkit):
    """A toolkit, which has libcudart.so or lib64, needs no help."""
    nvcc, lib = program(tmp_path / "cu13" / "bin" / "nvcc"), tmp_path / "cu13" / "lib"
    for name in ("libcudart_static.a", "libcudart.so.13", *(["libcudart.so"] if toolkit else [])):
        program(lib / name)
    call = f'gaf_help_nvcc_of_wheels({nvcc})\nset(result "${{CUDA_CUDART}} $ENV{{LIBRARY_PATH}}")'
    helped = called(tmp_path, call, tmp_path, LIBRARY_PATH="/before").strip()
    assert helped == ("/before" if toolkit else f"{lib}/libcudart.so.13 {lib}:/before")
