"""benchmarks/bench_attention.py as a part of benchmarks/gpu.sh: `python -m benchmarks.gpu.attention --out FILE.json`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.facts import ROOT, header
from gafcore.files import read_json, write_json


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """pytest-benchmark's JSON as rows: the pass, the path and the level of the UNet, milliseconds."""
    found = []
    for b in report["benchmarks"]:
        path, level = b["param"].rsplit("-", 1)
        stats = {f"{name}_ms": 1e3 * b["stats"][name] for name in ("median", "iqr", "min")}
        facts = {"pass": "forward+backward" if "backward" in b["name"] else "forward", "level": level, "path": path}
        found.append(facts | {"layers": b["extra_info"]["layers"]} | stats | {"rounds": b["stats"]["rounds"]})
    return found


def measure(*options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attention.json"
        command = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks" / "bench_attention.py"), "-p", "no:cacheprovider", "-s"]
        status = subprocess.run([*command, f"--benchmark-json={path}", *options], cwd=ROOT).returncode
        if not path.exists():
            raise SystemExit(f"attention: pytest failed ({status}) before anything was measured")
        return read_json(path) | {"status": status}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = header("attention") | {"note": "bfloat16, head dim 64, four views and the reference; CUDA graph replays"}
    measured = measure()
    write_json(args.out, report | {"results": rows(measured), "complete": measured["status"] == 0})
    if measured["status"]:
        raise SystemExit(f"attention: pytest failed ({measured['status']}); {args.out} has what was measured")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
