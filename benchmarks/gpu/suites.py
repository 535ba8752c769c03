"""The measured part of benchmarks/gpu.sh: `python -m benchmarks.gpu.suites ops|rasterize|scale --out FILE.json [--only NAME]`.

Rows without peers, and with gsplat, fused-ssim and nvdiffrast: ops 140 and 166, rasterize 505 and 793, scale 52. A row takes
BUDGET_S (0.12 s), a few calls more, and its capture; a suite that runs out of time leaves what it has, marked as not complete.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.facts import header
from benchmarks.gpu.measure import Row, failed
from gafcore.files import write_json

Groups = list[Callable[[], list[Row]]]


def ops() -> Groups:
    from benchmarks.gpu.ops import GROUPS

    return GROUPS


def rasterize() -> Groups:
    from benchmarks.gpu.rasterizer import groups

    return groups()


def _steps() -> list[Row]:
    from benchmarks.gpu.steps import step_rows

    return step_rows()


def _animation() -> list[Row]:
    from benchmarks.gpu.animation import animation_rows  # avatars need libraries that the ops do not

    return animation_rows()


def scale() -> Groups:
    return [_steps, _animation]


SUITES: dict[str, Callable[[], Groups]] = {"ops": ops, "rasterize": rasterize, "scale": scale}


def name_of(group: Callable[[], list[Row]]) -> str:
    return getattr(group, "__name__", "") or str(getattr(group, "args", group))


def guarded(group: Callable[[], list[Row]]) -> list[Row]:
    """The group's rows; where it cannot even make its inputs, a row that says why, so that the other groups still run."""
    try:
        return group()
    except ImportError as error:
        return [failed(name_of(group), ImportError(f"needs {error.name or error}"))]
    except Exception as error:
        return [failed(name_of(group), error)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="groups of rows whose name contains this")
    args = parser.parse_args()
    report = header(args.suite, with_peers=True) | {"results": []}
    for group in SUITES[args.suite]():
        if args.only in name_of(group):
            report["results"] += guarded(group)
            write_json(args.out, report)  # after each, so that a run that is cut off leaves what it has
    write_json(args.out, report | {"complete": True})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
