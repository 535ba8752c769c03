"""What one tool of compute-sanitizer said: `python -m benchmarks.gpu.sanitized TOOL EXIT_STATUS LOG --out FILE.json`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu.facts import header
from gafcore.files import write_json


def summary(log: str) -> str:
    """Its last line of importance, such as "ERROR SUMMARY: 0 errors"; empty where it came to none."""
    lines = [line.strip("= ") for line in log.splitlines() if "SUMMARY" in line]
    return lines[-1] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool")
    parser.add_argument("exit_status", type=int)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    log = args.log.read_text(encoding="utf-8", errors="replace") if args.log.exists() else ""
    found = {"tool": args.tool, "exit_status": args.exit_status, "summary": summary(log), "complete": True}
    write_json(args.out, header("sanitize") | found)


if __name__ == "__main__":
    main()
