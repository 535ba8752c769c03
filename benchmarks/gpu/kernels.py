"""The names of our kernels, from the sources: `python -m benchmarks.gpu.kernels` prints a pattern for ncu's --kernel-name regex:."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.gpu.facts import ROOT


def names(root: Path = ROOT) -> list[str]:
    """Of every `__global__` function in csrc/cuda."""
    sources = sorted(p for p in (root / "csrc" / "cuda").rglob("*") if p.suffix in (".cu", ".h"))
    found = {name for p in sources for name in names_in(p.read_text(encoding="utf-8"))}
    return sorted(found)


def names_in(source: str) -> list[str]:
    found = []
    for begin in re.finditer(r"\b__global__\b", re.sub(r"//.*", "", source)):
        rest = re.sub(r"//.*", "", source)[begin.end() :].lstrip()
        rest = rest.removeprefix("void").lstrip()
        if rest.startswith("__launch_bounds__"):
            rest = _behind_parentheses(rest)
        name = re.match(r"\s*(?:void\s+)?(\w+)\s*\(", rest)
        if name is None:
            raise ValueError(f"no kernel's name in {rest[:60]!r}; benchmarks/gpu/kernels.py must learn how it is written")
        found.append(name[1])
    return found


def _behind_parentheses(text: str) -> str:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == ")" and depth == 0:
            return text[i + 1 :]
    return ""


def pattern() -> str:
    return f"^({'|'.join(names())})"


if __name__ == "__main__":
    print(pattern())
