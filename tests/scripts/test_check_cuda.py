"""scripts/check_cuda.py reads ptxas's report."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

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
