"""Objects compiled for one instruction set must not export shared inline functions.

The linker keeps one copy of a weak symbol; if that is the AVX-512 one, an older processor crashes on code that had nothing to do with
AVX-512. Usage: check_isa_symbols.py BUILD_DIR
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path


def weak_symbols(path: Path) -> list[str]:
    lines = subprocess.run(["nm", "--demangle", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split(maxsplit=2) for line in lines]
    own = f"gaf::cpu::{path.parts[-5].removeprefix('_native_').removesuffix('.dir')}::"  # nobody else can call these
    return [f[2] for f in fields if len(f) == 3 and f[1] in "WVu" and own not in f[2]]


def main() -> int:
    objects = [p for isa in ("avx2", "avx512") for p in Path(sys.argv[1]).glob(f"CMakeFiles/_native_{isa}.dir/**/*.o")]
    if platform.machine() not in ("x86_64", "AMD64"):
        print(f"instruction sets: only the portable one on {platform.machine()}")
        return 0
    if not objects:
        print(f"{sys.argv[1]}: no objects of _native_avx2 or _native_avx512; was it built on x86-64?")
        return 1
    found = [f"{p.name} ({p.parts[-5]}): {symbol}" for p in objects for symbol in weak_symbols(p)]
    print("\n".join(found) if found else f"instruction sets: {len(objects)} objects share no symbol")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
