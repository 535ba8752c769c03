"""scripts/check_cuda.py reads ptxas's report."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "scripts" / "check_cuda.py"
spec = importlib.util.spec_from_file_location("check_cuda", PATH)
assert spec is not None and spec.loader is not None
check_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_cuda)

LOG = """
ptxas info    : Compiling entry function '_ZN3gaf4cuda1aEv' for 'sm_90'
ptxas info    : Function properties for _ZN3gaf4cuda1aEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 102 registers, used 1 barriers, 40288 bytes smem
ptxas info    : Compiling entry function '_Z4leakPf' for 'sm_120a'
ptxas info    : Function properties for _Z4leakPf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_rows():
    rows = check_cuda.kernel_rows(Path("csrc/cuda/some.cu"), LOG)
    assert [(r["sm"], r["registers"], r["shared"], r["stack"], r["spill"]) for r in rows] == [(90, 102, 40288, 0, 0), (120, 255, 0, 16, 20)]
    assert all(r["source"] == "some.cu" for r in rows)


def test_a_spill_is_marked_in_the_table():
    rows = check_cuda.kernel_rows(Path("some.cu"), LOG)
    check_cuda.demangle(rows)
    table = check_cuda.table(rows)
    assert "255!" in table and "102!" not in table and "40288" in table


def test_units_hold_every_source_once_and_every_kernel_has_a_home(tmp_path):
    sources = sorted((PATH.parents[1] / "csrc" / "cuda").rglob("*.cu"))
    units = check_cuda.units_of(sources, tmp_path)
    assert [u.name for u in units] == ["prim.cu", "photometric_loss.cu", "rasterization.cu", "other.cu"]
    merged = "".join(u.read_text() for u in units[2:])
    assert all(merged.count(f'"{s}"') == (s not in units) for s in sources)
    homes = check_cuda.homes([s for s in sources if s not in units])
    assert homes["blend_tiles"] == "rasterization_blend.cu" and homes["number_kernel"] == "groups.cu"
    assert len(homes) == sum(s.read_text().count("__global__") for s in sources if s not in units)


def test_units_are_those_that_cmake_makes(tmp_path):
    """Its two patterns: of the sources that stay alone, and of those merged into "rasterization"."""
    cmake = (PATH.parents[1] / "cmake" / "cuda.cmake").read_text()
    alone, together = (re.compile(p.replace("\\\\", "\\")) for p in re.findall(r'source MATCHES "([^"]+)"', cmake))
    names = re.search(r"foreach\(unit IN ITEMS ([a-z ]+)\)", cmake)[1].split()
    sources = sorted((PATH.parents[1] / "csrc" / "cuda").rglob("*.cu"))
    units = check_cuda.units_of(sources, tmp_path)
    assert {s for s in sources if alone.search(str(s))} == {u for u in units if u in sources}
    assert [u.stem for u in units if u not in sources] == names
    merged = (tmp_path / "rasterization.cu").read_text()
    assert [f'"{s}"' in merged for s in sources] == [bool(together.search(str(s))) and not alone.search(str(s)) for s in sources]


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    """Puts a stand-in for nvcc in its place, which offers some architectures and compiles everything."""

    def put(*architectures: int, status: int = 0) -> None:
        path = tmp_path / "nvcc"
        names = "\n".join(f"sm_{a}" for a in architectures)
        compiled = (
            f"echo \"ptxas info    : Compiling entry function '_Z1av' for 'sm_{architectures[0]}'\"; exit {status}" if architectures else ""
        )
        path.write_text(
            f"#!/bin/sh\ncase $1 in --list-gpu-code) echo '{names}';; --version) echo 'tools, release 12.9, V12';; *) {compiled};; esac\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("CUDACXX", str(path))

    monkeypatch.chdir(PATH.parents[1])
    return put


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_the_last_line_says_what_was_compiled(nvcc, capsys):
    """One kernel in each unit, of which CUB's is not counted."""
    nvcc(*check_cuda.ARCHITECTURES, 75)
    assert check_cuda.main(["--insist"]) == 0
    assert last_line(capsys) == "check_cuda: 3 kernels compiled by nvcc 12.9 for sm_80, sm_86, sm_89, sm_90, sm_100, sm_120"


def test_architectures_that_nvcc_does_not_offer_are_named(nvcc, capsys, tmp_path):
    nvcc(80, 86, 89, 90)
    want = "for sm_80, sm_86, sm_89, sm_90; NOT COMPILED for sm_100, sm_120, which this nvcc does not offer"
    assert check_cuda.main(["--out", str(tmp_path / "rows.json")]) == 0
    assert want in last_line(capsys)
    assert json.loads((tmp_path / "rows.json").read_text())["missing"] == [100, 120]
    assert check_cuda.main(["--insist"]) == 1
    assert want in last_line(capsys)
    assert check_cuda.main(["--insist", "--architectures", "80,90"]) == 0
    assert last_line(capsys).endswith("for sm_80, sm_90")
    nvcc(35)
    assert check_cuda.main([]) == 1
    assert "NOT COMPILED: nvcc 12.9" in last_line(capsys)


def test_what_does_not_compile_fails(nvcc, capsys):
    nvcc(90, status=1)
    assert check_cuda.main(["--architectures", "90"]) == 1
    assert last_line(capsys).endswith("for sm_90; 4 units do not compile, 0 spills")


def test_without_nvcc_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(check_cuda.shutil, "which", lambda _: None)
    monkeypatch.setattr(check_cuda.sysconfig, "get_path", lambda _: str(tmp_path))
    assert [check_cuda.main([]), check_cuda.main(["--insist"])] == [0, 1]
    assert "CUDA sources were NOT COMPILED: no nvcc" in last_line(capsys)
    for name in ("cu9", "cu13"):
        (tmp_path / "nvidia" / name / "bin").mkdir(parents=True)
        (tmp_path / "nvidia" / name / "bin" / "nvcc").touch()
    assert check_cuda.find_nvcc() == str(tmp_path / "nvidia" / "cu13" / "bin" / "nvcc")
