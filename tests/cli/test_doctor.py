"""`gafcore doctor`: what it says of compilers, architectures and extras, on machines that have them and on such that have not."""

from __future__ import annotations

import importlib.util
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from gafcore.cli import doctor
from gafcore.native import cuda_architectures, has_cuda

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_nvcc(monkeypatch, tmp_path):
    """A machine without nvcc; the folder returned is its site-packages."""
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda _: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("80",), "sm_80, PTX of 80 for later cards"),
        (("80-real", "90-real", "120"), "sm_80, sm_90, sm_120, PTX of 120 for later cards"),
        (("90-real",), "sm_90"),
        (("90-virtual",), "PTX of 90 for later cards"),
        (("all-major",), "all-major"),
    ],
)
def test_architectures_in_words(names, text):
    assert doctor.architectures_text(names) == text


def test_the_module_says_what_it_was_compiled_for():
    assert bool(cuda_architectures()) == has_cuda()
    assert all(re.fullmatch(r"\d+a?f?(-real|-virtual)?|native|all(-major)?", name) for name in cuda_architectures())


def test_without_nvcc_three_ways_to_it(no_nvcc, monkeypatch):
    monkeypatch.setattr(doctor, "has_cuda", lambda: False)
    for release, named in ((None, "13.0"), ("12.8", "13.0"), ("13.2", "13.2")):
        monkeypatch.setattr(torch.version, "cuda", release)
        text = "\n".join(doctor.nvcc_lines())
        assert "nvcc: none" in text and "developer.nvidia.com" in text and "conda install" in text
        assert f'pip install "nvidia-cuda-nvcc=={named}.*" "nvidia-nvvm=={named}.*"' in text


@pytest.mark.parametrize("compiled", [False, True])
def test_commands_name_the_architectures(no_nvcc, monkeypatch, compiled):
    monkeypatch.setattr(doctor, "has_cuda", lambda: compiled)
    *_, here, everywhere = doctor.nvcc_lines()
    assert here.endswith("pip install --no-cache-dir . -C cmake.define.GAF_CUDA=ON")
    assert everywhere.endswith('-C "cmake.define.GAF_CUDA_ARCHITECTURES=80-real;86-real;89-real;90-real;100-real;120"')
    assert len(doctor.nvcc_lines()) == (3 if compiled else 6)


def test_nvcc_is_looked_for_where_the_build_looks(no_nvcc, monkeypatch):
    for release in ("cu9", "cu13"):
        (no_nvcc / "nvidia" / release / "bin").mkdir(parents=True)
        (no_nvcc / "nvidia" / release / "bin" / "nvcc").touch()
    assert doctor.find_nvcc() == str(no_nvcc / "nvidia" / "cu13" / "bin" / "nvcc")
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvcc")
    assert doctor.find_nvcc() == "/usr/bin/nvcc"
    monkeypatch.setenv("CUDACXX", "/opt/mine")
    assert doctor.find_nvcc() == doctor.nvcc_lines()[0].removeprefix("nvcc: ") == "/opt/mine"


def test_packages_and_architectures_are_those_of_the_project():
    pinned = re.findall(r"^([a-z-]+)==13\.0\.\*$", (ROOT / "requirements" / "nvcc.txt").read_text(), re.M)
    assert sorted(pinned) == sorted(doctor.NVCC_PACKAGES)
    listed = re.search(r"^ARCHITECTURES = \(([\d, ]+)\)$", (ROOT / "scripts" / "check_cuda.py").read_text(), re.M)
    assert listed is not None
    assert listed[1].split(", ") == [name.removesuffix("-real") for name in doctor.ALL_ARCHITECTURES.split(";")]


def test_extras_are_those_of_the_project():
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    declared = {extra: set(re.findall(r'"([A-Za-z-]+)', body)) for extra, body in re.findall(r"^(\w+) = \[(.*?)\]$", section, re.M | re.S)}
    assert {extra: set(needs) for extra, (_, needs) in doctor.EXTRAS.items()} == declared


def test_a_missing_extra_is_said_with_its_command(monkeypatch):
    specs = {"diffusers": None, "triton": ModuleSpec("triton", None)}  # the second: a folder of that name
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: specs.get(module, ModuleSpec(module, None, origin="somewhere")))
    assert doctor.extra_line("diffusion") == (
        "diffusion: missing diffusers, triton; needed for the multi-view diffusion model and training a prior; "
        'get it with: pip install "gafcore[diffusion]"'
    )
