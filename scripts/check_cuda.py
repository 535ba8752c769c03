"""Compile every CUDA source for every architecture with warnings as errors, and report registers, shared memory and spills of each kernel.

    check_cuda.py [--out FILE.json] [--architectures 80,90] [FILE.cu ...]

Sources are compiled in few units, as cmake/cuda.cmake merges them; files that are named, one by one. Needs nvcc (CUDACXX, on PATH, or from
PyPI in this Python's packages), no GPU. Exits 1 where a source does not compile, or a kernel spills registers to memory. Without nvcc, or
with one that does not know an architecture of the list, it says so and exits 0, or 1 with --insist. The last line is a summary.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
FLAGS = ["-std=c++20", "-O3", "-Icsrc", "-Werror", "all-warnings", "-Wno-deprecated-gpu-targets", "-Xptxas", "-v", "--resource-usage"]
ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)\w*'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
KERNEL = re.compile(r"__global__ void (?:__launch_bounds__\(.*\)\s+)?(\w+)\(")
LARGEST = ("prim.cu", "photometric_loss.cu")  # a unit each, and the first to be compiled


def find_nvcc() -> str | None:
    """As cmake/nvcc.cmake finds it."""
    wheels = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"), key=lambda p: (len(str(p)), str(p)))
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or (str(wheels[-1]) if wheels else None)


def offered(nvcc: str) -> tuple[list[int], list[int]]:
    """Architectures of our list that this nvcc knows, and those that it does not."""
    text = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    known = {int(n) for n in re.findall(r"sm_(\d+)\b", text)}
    return [a for a in ARCHITECTURES if a in known], [a for a in ARCHITECTURES if a not in known]


def release(nvcc: str) -> str:
    """Its release, such as 13.0."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", text)
    return found[1] if found else "of unknown release"


def sm(architectures: Iterable[int]) -> str:
    return ", ".join(f"sm_{a}" for a in architectures)


def units_of(sources: list[Path], folder: Path) -> list[Path]:
    """As few files as cmake/cuda.cmake makes of them: CUDA's headers take longer than most sources, once for each architecture."""
    merged: dict[str, list[Path]] = {"rasterization.cu": [], "other.cu": []}
    for source in sources:
        if source.name not in LARGEST:
            merged["rasterization.cu" if source.name.startswith("rasterization_") else "other.cu"].append(source)
    for name, parts in merged.items():
        (folder / name).write_text("".join(f'#include "{p.resolve()}"\n' for p in parts))
    alone = sorted((s for s in sources if s.name in LARGEST), key=lambda s: LARGEST.index(s.name))
    return alone + [folder / name for name, parts in merged.items() if parts]


def homes(sources: list[Path]) -> dict[str, str]:
    """The file of each kernel, by the kernel's name: within a unit names differ."""
    return {name: s.name for s in sources for name in KERNEL.findall(s.read_text())}


def kernel_rows(source: Path, log: str) -> list[dict]:
    """One row a kernel and architecture, from ptxas's report."""
    rows: list[dict] = []
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            rows.append(
                {"source": source.name, "mangled": entry[1], "sm": int(entry[2]), "registers": 0, "shared": 0, "stack": 0, "spill": 0}
            )
        elif not rows:
            continue
        elif stack := STACK.search(line):
            rows[-1]["stack"], rows[-1]["spill"] = int(stack[1]), int(stack[2]) + int(stack[3])
        elif used := USED.search(line):
            shared = SHARED.search(line)
            rows[-1]["registers"], rows[-1]["shared"] = int(used[1]), int(shared[1]) if shared else 0
    return rows


def demangle(rows: list[dict]) -> None:
    names = "\n".join(r.pop("mangled") for r in rows)
    text = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout if shutil.which("c++filt") else names
    for row, name in zip(rows, text.splitlines(), strict=True):
        row["kernel"] = re.sub(r"\(anonymous namespace\)::|gaf::cuda::|void ", "", name).split("(")[0]


def compile_source(nvcc: str, source: Path, architectures: list[int]) -> tuple[Path, str, bool]:
    targets = [flag for a in architectures for flag in ("-gencode", f"arch=compute_{a},code=sm_{a}")]
    targets += ["-gencode", f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, *targets, "-c", str(source), "-o", f"{folder}/out.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    return source, done.stdout + done.stderr, done.returncode == 0


def table(rows: list[dict]) -> str:
    """Kernels down, architectures across: registers, and shared memory in bytes where there is some."""
    architectures = sorted({r["sm"] for r in rows})
    names = list(dict.fromkeys((r["source"], r["kernel"]) for r in rows))
    cells = {(r["source"], r["kernel"], r["sm"]): r for r in rows}
    lines = [f"{'registers of each kernel':<58}" + "".join(f"sm_{a:<7}" for a in architectures) + "shared"]
    for source, kernel in names:
        own = [cells.get((source, kernel, a)) for a in architectures]
        used = "".join(f"{(str(r['registers']) + ('!' if r['spill'] else '')) if r else '-':<10}" for r in own)
        lines.append(f"{source + ' ' + kernel:<58.57}{used}{max(r['shared'] for r in own if r)}")
    return "\n".join(lines)


def compile_all(nvcc: str, named: list[Path], architectures: list[int]) -> tuple[list[dict], int]:
    """Rows of every kernel, CUB's included, and how many units did not compile."""
    sources = named or sorted(Path("csrc/cuda").rglob("*.cu"))
    rows, failed = [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as folder:
        units = named or units_of(sources, Path(folder))
        for source, log, ok in pool.map(lambda s: compile_source(nvcc, s, architectures), units):
            if not ok:
                failed += 1
                print(f"{source}: does not compile\n{log}")
            rows += kernel_rows(source, log)
    demangle(rows)
    own_files = homes([s for s in sources if s.name not in LARGEST])
    for row in rows:
        row["source"] = own_files.get(row["kernel"].split("<")[0], row["source"])
    return rows, failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--architectures", help="comma-separated; default: all that nvcc offers of " + ",".join(map(str, ARCHITECTURES)))
    parser.add_argument("--insist", action="store_true", help="fail where there is no nvcc, or one that does not offer all of them")
    args = parser.parse_args(arguments)
    nvcc = find_nvcc()
    if nvcc is None:
        print("check_cuda: CUDA sources were NOT COMPILED: no nvcc in CUDACXX, on PATH or from PyPI (requirements/nvcc.txt)")
        return int(args.insist)
    architectures, missing = ([int(a) for a in args.architectures.split(",")], []) if args.architectures else offered(nvcc)
    if not architectures:
        print(f"check_cuda: CUDA sources were NOT COMPILED: nvcc {release(nvcc)} ({nvcc}) offers none of {sm(missing)}")
        return 1
    rows, failed = compile_all(nvcc, args.sources, architectures)
    own = [r for r in rows if r["source"] != "prim.cu"]  # CUB's kernels are not ours
    print(table(own))
    if args.out:
        args.out.write_text(
            json.dumps({"nvcc": release(nvcc), "architectures": architectures, "missing": missing, "kernels": rows}, indent=1)
        )
    spilling = [r for r in own if r["spill"]]
    for r in spilling:
        print(f"{r['source']}: {r['kernel']} spills {r['spill']} bytes on sm_{r['sm']}")
    n_kernels = len({(r["source"], r["kernel"]) for r in own})
    left_out = f"; NOT COMPILED for {sm(missing)}, which this nvcc does not offer" if missing else ""
    faults = f"; {failed} units do not compile, {len(spilling)} spills" if failed or spilling else ""
    print(f"check_cuda: {n_kernels} kernels compiled by nvcc {release(nvcc)} for {sm(architectures)}{left_out}{faults}")
    return int(bool(failed or spilling or (missing and args.insist)))


if __name__ == "__main__":
    sys.exit(main())
