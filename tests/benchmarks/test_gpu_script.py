"""benchmarks/gpu.sh with a stand-in for Python that plays the parts: what the script itself does, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"

# Missing modules are those in $MISSING; the parts do as their cases say; what only formats is done by the real Python.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
  *"json.dumps"* | *"benchmarks.gpu.report"*) exec @REAL@ "$@" ;;
  *"m for m in sys.argv"*) shift 2; for m in "$@"; do [[ " $MISSING " != *" $m "* ]] || found+="${found:+, }$m"; done; echo "$found" ;;
  *"is_available"*) exit ${NO_GPU:-0} ;;
  *"get_device_capability"*) [ -z "${NO_GPU:-}" ] && echo 9.0 ;;
  *"pip install"*fused*) echo "nvcc: an error of its own" >&2; exit 1 ;;
  *"pip install"*) exit 0 ;;
  *"find_spec"*) exit 0 ;;
  *"gsplat.cuda"*) echo "ninja: build stopped" >&2; exit 1 ;;
  *"suites rasterize"*) sleep 30 ;;
  *"gpu.fit"*) echo "RuntimeError: no such thing" >&2; exit 1 ;;
  *"-m pytest"*) echo "= 12 passed, 1 skipped in 3.21s =" ;;
  *"gpu.kernels"*) echo "^(a|b)" ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {"python": PYTHON.replace("@REAL@", sys.executable), "nvcc": "#!/bin/sh\n", "nvidia-smi": "#!/bin/sh\necho a card\n"}
    programs["compute-sanitizer"] = '#!/bin/sh\n[ "$2" != synccheck ] || exit 9\n'
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def call(*parts: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": str(folder / "python"), "PATH": f"{folder}:{os.environ['PATH']}", **variables}
        command = ["bash", str(SCRIPT), str(tmp_path / "out"), *parts]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    return call


def outcome(tmp_path: Path, part: str) -> tuple[str, str]:
    found = json.loads((tmp_path / "out" / f"part_{part}.json").read_text())
    return found["outcome"], found["why"]


def test_its_syntax():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_without_arguments_it_explains_itself():
    said = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert said.returncode == 2
    assert "OUT_DIR [PART ...]" in said.stdout and said.stdout.rstrip().endswith("says why in the report.")


def test_an_unknown_part_is_refused_before_any_runs(run, tmp_path):
    said = run("ops", "opps")
    assert said.returncode == 2 and "no part opps; there are wheels deps build" in said.stderr
    assert not (tmp_path / "out" / "part_ops.json").exists()


def test_parts_run_in_their_order_and_one_does_not_end_the_others(run, tmp_path):
    said = run("report", "fit", "rasterize", "ops", "test", "deps", LIMIT="5")
    assert said.returncode == 1
    assert [line[3:] for line in said.stdout.splitlines() if line.startswith("== ")] == [
        "deps",
        "test",
        "ops",
        "rasterize",
        "fit",
        "report",
    ]
    assert outcome(tmp_path, "ops") == ("passed", "")
    assert outcome(tmp_path, "rasterize") == ("cut off", "did not end in 5 s")
    assert outcome(tmp_path, "fit") == ("failed", "RuntimeError: no such thing")
    assert outcome(tmp_path, "deps")[0] == "left out" and "WHEELS" in outcome(tmp_path, "deps")[1]
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    assert "| build | not run |  |  |" in lines
    assert any(line.startswith("| fit | failed | ") and line.endswith("| RuntimeError: no such thing |") for line in lines)
    assert any(line.startswith("| rasterize | cut off | ") for line in lines)
    assert "`pytest -m gpu`: 12 passed, 1 skipped in 3.21s." in lines


def test_a_part_that_lacks_a_library_names_it(run, tmp_path):
    assert run("fit", "scale", MISSING="scipy plyfile", WHEELS="wheels").returncode == 0
    reason = f"needs plyfile, scipy: not in {tmp_path / 'wheels'}, or the part deps has not run"
    assert outcome(tmp_path, "fit") == ("left out", reason)
    assert outcome(tmp_path, "scale") == ("passed", "")


def test_without_a_gpu_every_part_says_so(run, tmp_path):
    parts = ("build", "test", "memcheck", "ops", "profile", "attention")
    assert run(*parts, NO_GPU="1").returncode == 0
    assert {outcome(tmp_path, part)[0] for part in parts} == {"left out"}
    assert {outcome(tmp_path, part)[1].split(",")[0].split(":")[0] for part in parts} == {"needs a GPU"}


def test_synccheck_is_reported_only(run, tmp_path):
    assert run("sanitize").returncode == 0
    assert outcome(tmp_path, "memcheck") == outcome(tmp_path, "synccheck") == ("passed", "")
    assert "synccheck objects" in (tmp_path / "out" / "synccheck.log").read_text()


def test_a_peer_that_does_not_build_is_left_out_for_good(run, tmp_path):
    peers = tmp_path / "wheels" / "peers"
    peers.mkdir(parents=True)
    for name in ("gsplat-1.5.3-py3-none-any.whl", "fused-ssim"):
        (peers / name).touch()
    said = run("peers", WHEELS="wheels")
    assert said.returncode == 0, said.stdout
    lines = (tmp_path / "out" / "peers_left_out.txt").read_text().splitlines()
    assert sorted(lines) == [
        "fused_ssim: did not install: nvcc: an error of its own",
        "gsplat: did not compile itself: ninja: build stopped",
    ]
