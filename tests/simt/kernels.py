"""Which kernels of csrc/cuda the emulator has run, by the names that the module's symbols give them."""

from __future__ import annotations

import re
import subprocess

from tests.simt.emulator import ROOT, load

KERNEL = re.compile(r"__global__ void (?:__launch_bounds__\(.*\)\s+)?(\w+)\(")
SYMBOL = re.compile(r"^([0-9a-f]+) [tT] (?:void )?gaf::cuda::(?:\(anonymous namespace\)::)?(\w+)(<[^()]*>)?\(")


def sources() -> set[str]:
    """Names of all kernels in csrc/cuda."""
    found: list[str] = []
    for path in sorted((ROOT / "csrc" / "cuda").rglob("*.cu*")):
        text = path.read_text()
        own = KERNEL.findall(text)
        assert len(own) == text.count("__global__"), f"{path}: a kernel is declared in a way that {KERNEL.pattern} does not match"
        found += own
    return set(found)


def symbols(listing: str) -> dict[int, str]:
    """Functions of gaf::cuda by their place in the module, from `nm --demangle`: each instance of a template by its arguments."""
    lines = (SYMBOL.match(line) for line in listing.splitlines() if "[clone" not in line)
    return {int(m[1], 16): m[2] + (m[3] or "") for m in lines if m}


def compiled() -> dict[int, str]:
    """Kernels of the emulator's module by their place in it."""
    path = load().__file__
    assert path is not None
    listing = subprocess.run(["nm", "--demangle", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    return {place: name for place, name in symbols(listing).items() if name.split("<")[0] in sources()}


def never_run(instances: bool = True) -> list[str]:
    """Kernels that were not launched in this process; with `instances` also a template's for some of its arguments."""
    launches, names = load().launches_by_place(), compiled()
    ran = {name for place, name in names.items() if launches.get(place)}
    idle = sources() - {name.split("<")[0] for name in ran}
    return sorted(idle | {name for name in names.values() if instances and "<" in name and name not in ran})
