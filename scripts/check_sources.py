"""Rules of the source tree that no other tool knows: file sizes, no torch in csrc, no file too large to review, no dead link in the docs.

Run from the repository's root; prints every breach and exits 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LIMITS = {".py": 400, ".cpp": 500, ".h": 500, ".cu": 500, ".cuh": 500}
TORCH_INCLUDE = re.compile(r'#include\s*[<"](torch|ATen|c10)/')
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
MAX_KIB = 2048
LARGER_KIB = {"python/gafcore/diffusion/small/data/small_prior.safetensors": 24 * 1024}  # the shipped weights


def breaches(path: Path) -> list[str]:
    found = []
    limit = LARGER_KIB.get(path.as_posix(), MAX_KIB)
    if path.stat().st_size > limit * 1024:
        found.append(f"{path}: {path.stat().st_size // 1024} KiB, at most {limit}")
    if path.suffix in LIMITS:
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > LIMITS[path.suffix]:
            found.append(f"{path}: {lines} lines, at most {LIMITS[path.suffix]}; split it by stage")
        if path.parts[0] == "csrc" and TORCH_INCLUDE.search(text):
            found.append(f"{path}: includes torch; csrc knows no framework")
    return found


def dead_links(path: Path) -> list[str]:
    """Relative links and pictures of a Markdown file that lead nowhere."""
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    return [f"{path}: {t} does not exist" for t in targets if "://" not in t and not (path.parent / t).exists()]


def main() -> int:
    tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    files = [Path(name) for name in tracked if name and Path(name).is_file()]
    found = [line for path in files for line in breaches(path)]
    found += [line for path in files if path.suffix == ".md" for line in dead_links(path)]
    print("\n".join(found) if found else f"sources: {len(tracked) - 1} files within the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
