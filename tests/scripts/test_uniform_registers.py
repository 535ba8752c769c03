"""nvcc keeps what a whole warp shares in uniform registers where the rasterizer's time goes: looked up in the code that it makes for sm_90.

A warp walks the set bits of a mask. Whether that mask lies in a uniform register is the compiler's choice, which a change far away from
the loop can turn; then finding the next splat is left to the instructions and registers that work on its pixels.
"""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("check_cuda", ROOT / "scripts" / "check_cuda.py")
assert spec is not None and spec.loader is not None
check_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_cuda)

# Bits 0 to 11 of an instruction's sixteen bytes, as nvdisasm 13.1 shows them. The first set bit of a mask is found by reversing its bits.
UBREV, BREV = 0x2BE, 0x301


def code_of(cubin: bytes) -> dict[str, bytes]:
    """Machine code of each kernel, by its mangled name, of a 64-bit ELF file."""
    (headers,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names_at = struct.unpack_from("<3H", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, headers + i * size) for i in range(count)]
    names = sections[names_at][4]
    found = {}
    for name, _, _, _, offset, n_bytes in sections:
        text = cubin[names + name : cubin.index(b"\0", names + name)].decode()
        if text.startswith(".text."):
            found[text.removeprefix(".text.")] = cubin[offset : offset + n_bytes]
    return found


def opcodes(code: bytes) -> list[int]:
    return [int.from_bytes(code[i : i + 2], "little") & 0xFFF for i in range(0, len(code), 16)]


@pytest.mark.parametrize(("source", "kernel"), [("rasterization_blend", "blend_tiles"), ("rasterization_pieces", "blend_pieces")])
def test_masks_of_blending_lie_in_uniform_registers(source, kernel, tmp_path):
    nvcc = check_cuda.find_nvcc()
    if nvcc is None or 90 not in check_cuda.offered(nvcc)[0]:
        pytest.skip("there is no nvcc that compiles for sm_90 (requirements/nvcc.txt)")
    cubin = tmp_path / "out.cubin"
    flags = ["-std=c++20", "-O3", "-Icsrc", "-arch=sm_90", "-cubin", "-o", str(cubin)]
    subprocess.run([nvcc, *flags, f"csrc/cuda/{source}.cu"], cwd=ROOT, check=True, capture_output=True, text=True)
    kernels = {k: opcodes(v) for k, v in code_of(cubin.read_bytes()).items() if kernel in k}
    assert sorted(re.findall(r"ILi(\d)E", " ".join(kernels))) == ["1", "2", "3", "4"]  # channels
    for name, found in kernels.items():
        assert found.count(UBREV) == 2 and BREV not in found, f"{name}: {found.count(UBREV)} uniform, {found.count(BREV)} others"
