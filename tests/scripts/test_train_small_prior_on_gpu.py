"""scripts/train_small_prior_on_gpu.sh: which commands it gives, to whom, and what it keeps when one of them fails. Nothing is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In python's place: notes its command, writes the file that the stage is for, fails where it is told to.
STAND_IN = """#!{python}
import os, sys, time
from pathlib import Path

words = sys.argv[1:]
given = dict(zip(words, words[1:]))
stage = "evaluate" if "evaluate" in words[0] else words[1]
name = Path(given["--prior"] if stage == "evaluate" else words[2]).resolve()
name = name.parent.name if stage == "evaluate" else name.name
with open(os.environ["NOTES"], "a") as notes:
    notes.write(" ".join([name, stage, *words[2:]]) + "\\n")
if name + "/" + stage in os.environ.get("BROKEN", "").split():
    sys.exit(1)
if stage == "people":
    Path(words[2], "people_1000000.safetensors").touch()
elif stage == "export":
    Path(given["--out"]).write_bytes(b"x" * 100)
elif stage == "evaluate":
    Path(given["--json"]).write_text("{{}}")
"""


@pytest.fixture
def run(tmp_path):
    stand_in, notes, out = tmp_path / "python", tmp_path / "notes", tmp_path / "out"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)

    def run(**variables):
        environment = os.environ | {"PYTHON": str(stand_in), "NOTES": str(notes)} | variables
        script = ["bash", "scripts/train_small_prior_on_gpu.sh", str(tmp_path / "work"), str(out), "30", "cpu"]
        done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        calls = notes.read_text().splitlines() if notes.exists() else []
        return done, [tuple(line.split()[:2]) for line in calls], calls, sorted(p.name for p in out.glob("*")) if out.exists() else []

    return run


def test_one_training_as_it_always_was(run):
    done, stages, calls, files = run()
    assert done.returncode == 0 and files == ["prior.log", "prior_eval.json", "small_prior.part0"]
    assert [s for s in stages if s[0] == "rig" and s[1] != "export"] == [("rig", "regression"), ("rig", "diffusion"), ("rig", "evaluate")]
    assert stages.count(("rig", "export")) == 2 and not any("--init" in call for call in calls)


def test_trainings_beside_each_other_on_the_same_people(run, tmp_path):
    done, stages, calls, files = run(CONDITION="rig pose tuned", DIFFUSION="tuned", INIT="mine.safetensors", FIRST="7")
    assert files == [
        "prior.log", "prior_eval.json", "prior_eval_pose.json", "prior_eval_tuned.json",
        "small_prior.part0", "small_prior_pose.part0", "small_prior_tuned.part0",
    ]  # fmt: skip
    assert sorted(s for s in stages if s[1] in ("regression", "diffusion")) == [
        ("pose", "regression"), ("rig", "regression"), ("tuned", "diffusion"), ("tuned", "regression"),
    ]  # fmt: skip
    regression = {call.split()[0]: call for call in calls if " regression " in call}
    assert all(f"--people-folder {tmp_path}/work " in call and "--wait-people 7 " in call for call in regression.values())
    assert "--condition pose" in regression["pose"] and "--condition rig --init mine.safetensors" in regression["tuned"]
    assert "--init" not in regression["rig"] and len([s for s in stages if s[1] == "people"]) == 1
    assert "all of it:" in done.stdout


def test_one_that_fails_leaves_the_other_alone(run):
    done, stages, calls, files = run(CONDITION="rig pose", BROKEN="pose/regression pose/export rig/diffusion")
    assert {"small_prior.part0", "prior_eval.json"} <= set(files) and "small_prior_pose.part0" not in files
    assert ("rig", "evaluate") in stages
    assert "pose: regression: failed twice" in done.stdout and "rig: diffusion: failed twice" in done.stdout
    tried = [call for call in calls if call.startswith("pose regression")]
    assert [call.split()[-1] for call in tried] == ["--graph", "--no-graph"]


def test_a_training_that_does_not_exist(run):
    done, stages, _, _ = run(CONDITION="rig poses")
    assert done.returncode == 2 and "CONDITION: must name rig, pose, tuned, got 'poses'" in done.stderr and not stages
