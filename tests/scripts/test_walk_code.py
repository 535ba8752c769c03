"""nvcc lets a warp look at several splats at once where the rasterizer's time goes: looked up in the code that it makes for sm_90.

Blending finds the alphas of four splats before any of them takes its turn, so that one's loads and exponential do not wait for
another's. A branch between them, which a harmless looking `if` can bring, undoes that: then they come one after the other.
"""

from __future__ import annotations

import importlib.util
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("check_cuda", ROOT / "scripts" / "check_cuda.py")
assert spec is not None and spec.loader is not None
check_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_cuda)

# Bits 0 to 11 of an instruction's sixteen bytes, and of MUFU bits 72 to 77, which say what it computes, as nvdisasm 13.1 shows them.
BRA, MUFU, EX2 = 0x947, 0x308, 0x08
TOGETHER = 4


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


def exponentials(code: bytes) -> list[int]:
    """How many there are between a branch and the next, where there are any."""
    runs = [0]
    for i in range(0, len(code), 16):
        opcode = int.from_bytes(code[i : i + 2], "little") & 0xFFF
        if opcode == BRA:
            runs.append(0)
        elif opcode == MUFU and code[i + 9] & 0x3F == EX2:
            runs[-1] += 1
    return [n for n in runs if n > 0]


# Backward looks at eight pairs in two halves, the second of which it may leave out.
@pytest.mark.parametrize(
    ("source", "kernel", "instances", "runs"),
    [
        ("rasterization_blend", "blend_tiles", 4, [TOGETHER]),
        ("rasterization_pieces", "blend_pieces", 4, [TOGETHER]),
        ("rasterization_blend_vjp", "blend_bucket_vjp", 8, [TOGETHER] * 2),
    ],
)
def test_splats_are_looked_at_together(source, kernel, instances, runs, tmp_path):
    nvcc = check_cuda.find_nvcc()
    if nvcc is None or 90 not in check_cuda.offered(nvcc)[0]:
        pytest.skip("there is no nvcc that compiles for sm_90 (requirements/nvcc.txt)")
    cubin = tmp_path / "out.cubin"
    flags = ["-std=c++20", "-O3", "-Icsrc", "-arch=sm_90", "-cubin", "-o", str(cubin)]
    subprocess.run([nvcc, *flags, f"csrc/cuda/{source}.cu"], cwd=ROOT, check=True, capture_output=True, text=True)
    kernels = {k: exponentials(v) for k, v in code_of(cubin.read_bytes()).items() if kernel in k}
    assert kernels == dict.fromkeys(kernels, runs) and len(kernels) == instances
