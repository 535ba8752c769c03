"""`gafcore ablate` on a tiny capture; the rows themselves are tested in tests/evaluation."""

from __future__ import annotations

import json

import pytest

from gafcore.cli.ablate import parse_frames
from gafcore.cli.main import main
from gafcore.errors import InputError

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate") / "capture"
    synth = ["--size", "48", "--n-timesteps", "5", "--n-cameras", "3", "--eval-timesteps", "1", "--samples", "1", "--hair", "bald"]
    assert main(["synth", "--out", str(folder), *synth]) == 0
    return str(folder)


def test_table_3_with_what_is_at_hand(capture, tmp_path, capsys):
    """Rows that need weights are in the table and in the log; the second time nothing is fitted."""
    command = ["ablate", capture, "--out", str(tmp_path / "out"), "--iterations", "2", "--presets", "none", "pretrained-sd", "pose", "full"]
    for _ in range(2):
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].strip() == "pretrained-sd: not run: needs --sd FOLDER --controlnet FOLDER"
        assert lines[2].strip() == "pose: not run: needs --pose-prior PATH"
        assert "| pretrained-sd | not run: needs --sd FOLDER --controlnet FOLDER |" in "\n".join(lines)
    rows = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert [row["preset"] for row in rows] == ["none", "pretrained-sd", "pose", "full"]
    assert rows[0]["scores"]["novel"] != rows[3]["scores"]["novel"] and rows[1]["scores"] is None


def test_fewer_frames(capture, tmp_path):
    assert main(["ablate", capture, "--out", str(tmp_path / "out"), "--iterations", "2", "--presets", "none", "--frames", "4,1"]) == 0
    rows = json.loads((tmp_path / "out" / "frames.json").read_text())["rows"]
    assert [(row["preset"], row["frames"]) for row in rows] == [("none", 4), ("none", 1)]
    assert all((tmp_path / "out" / f"frames.{kind}").is_file() for kind in ("md", "png", "svg"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "whole numbers from 1 on"),
        ("4,x", "got 'x'"),
        ("", "got ''"),
        ("4,,1", "got ''"),
        ("-1", "got '-1'"),
        ("1.5", "got '1.5'"),
        ("4,4", "twice"),
        ("²", "got '²'"),
        ("9" * 5000, "got '999"),
        ("5", "has 4 frames, so 5 cannot be chosen; name 1 to 4"),
    ],
)
def test_wrong_numbers_of_frames(capture, tmp_path, capsys, text, said):
    assert main(["ablate", capture, "--out", str(tmp_path / "out"), f"--frames={text}"]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_numbers_of_frames():
    assert parse_frames("56, 40,1") == [56, 40, 1]
    with pytest.raises(InputError, match="separated by commas"):
        parse_frames("56 40")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--presets", "nothing"], "unknown presets ['nothing']"),
        (
            ["--presets", "pose", "pretrained-sd"],
            "none of the rows can be run: pose needs --pose-prior PATH; pretrained-sd needs --sd",
        ),
        (["--sd", "nowhere", "--controlnet", "nowhere"], "nowhere: no such folder"),
        (["--prior", "nowhere"], "nowhere: no such file"),
        (["--pose-prior", "nowhere"], "nowhere: no such file"),
        (["--refresh-every", "0"], "refresh_every must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_told_before_anything_is_fitted(capture, tmp_path, capsys, flags, said):
    if "--sd" in flags:
        pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    assert main(["ablate", capture, "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
