"""The commands end to end on a tiny synthetic person: each reads what the one before it wrote."""

from __future__ import annotations

import json
import math
import shutil

import av
import pytest
from PIL import Image

from gafcore.cli.evaluate import fit_notes, read_history
from gafcore.cli.main import main
from gafcore.errors import InputError

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    synth = ["--size", "64", "--n-timesteps", "5", "--n-cameras", "9", "--eval-timesteps", "1", "--samples", "1", "--hair", "bald"]
    assert main(["synth", "--out", str(folder / "capture"), *synth]) == 0
    assert main(["fit", str(folder / "capture"), "--out", str(folder / "avatar"), "--iterations", "20"]) == 0
    return folder


def test_synth_writes_a_capture(work):
    transforms = json.loads((work / "capture" / "transforms.json").read_text())
    assert len(transforms["timestep_indices"]) == 5
    with Image.open(work / "capture" / transforms["frames"][0]["file_path"]) as image:
        assert image.size == (64, 64)


def test_fit_writes_an_avatar_and_its_history(work):
    manifest = json.loads((work / "avatar" / "avatar.json").read_text())
    assert "procedural" in json.dumps(manifest["rig"])
    history = json.loads((work / "avatar" / "history.json").read_text())
    assert history["iteration"] == [10, 20] and history["loss"][1] < history["loss"][0]


def test_eval_measures_every_split(work, capsys):
    assert main(["eval", str(work / "avatar"), str(work / "capture"), "--out", str(work / "report")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "psnr" in line]
    assert [line.split(":")[0] for line in lines] == ["train", "novel_view", "novel_expression"]
    assert "<svg" in (work / "report" / "report.html").read_text()
    stored = json.loads((work / "report" / "evaluation.json").read_text())
    assert stored["notes"][0].startswith("Fit: The LPIPS term was off")
    assert "Fit: The LPIPS term was off" in (work / "report" / "report.html").read_text()


def test_notes_of_a_fit():
    assert fit_notes({"notes": ["one", 2]}) == ("Fit: one",)
    assert fit_notes({"notes": 5}) == fit_notes({}) == ()


def test_a_fitted_colour_correction_is_applied_and_said(work, tmp_path, capsys):
    """As if the camera had shown the avatar at three quarters of its brightness, which makes the figures worse."""
    copy, command = tmp_path / "avatar", ["eval", str(tmp_path / "avatar"), str(work / "capture"), "--splits", "train", "--max-frames", "2"]
    shutil.copytree(work / "avatar", copy)
    manifest = json.loads((copy / "avatar.json").read_text())
    manifest["info"]["color_correction"] = [[[math.log(0.75)] * 3, [0.0] * 3]] * 5
    (copy / "avatar.json").write_text(json.dumps(manifest))
    psnr = {}
    for mode in ("none", "fitted"):
        assert main([*command, "--out", str(tmp_path / mode), "--color", mode]) == 0
        stored = json.loads((tmp_path / mode / "evaluation.json").read_text())
        psnr[mode] = stored["mean"]["train"]["psnr"]
        assert sum(note.startswith("Colours: ") for note in stored["notes"]) == 1
    assert psnr["none"] > psnr["fitted"] + 0.5
    manifest["info"]["color_correction"] = [[1.0]]
    (copy / "avatar.json").write_text(json.dumps(manifest))
    assert main([*command, "--out", str(tmp_path / "x")]) == 2
    assert "avatar.json: the colour correction must be [1 or 5, 2, 3], got [1, 1]" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["[]", '{"iteration": [1]}', '{"iteration": [1], "loss": [NaN], "psnr": [1], "n_gaussians": [1]}', "{"])
def test_a_broken_history_is_named(tmp_path, broken):
    path = tmp_path / "history.json"
    assert read_history(path) is None
    path.write_text(broken)
    with pytest.raises(InputError, match=r"history\.json: "):
        read_history(path)


def test_synth_replaces_its_own_capture_only(tmp_path, capsys):
    tiny = ["--size", "16", "--n-timesteps", "1", "--n-cameras", "1", "--samples", "1", "--hair", "bald"]
    for _ in range(2):
        assert main(["synth", "--out", str(tmp_path / "c"), *tiny]) == 0
    (tmp_path / "c" / "avatar").mkdir()
    assert main(["synth", "--out", str(tmp_path / "c"), *tiny]) == 2
    assert "was not written by this: avatar" in capsys.readouterr().err and (tmp_path / "c" / "avatar").exists()
    assert main(["synth", "--out", str(tmp_path), *tiny]) == 2


def test_render_makes_videos_and_folders(work):
    size = ["--size", "48", "32", "--frames", "4"]
    assert main(["render", str(work / "avatar"), "--out", str(work / "orbit.mp4"), "--orbit", *size]) == 0
    with av.open(str(work / "orbit.mp4")) as container:
        assert len(list(container.decode(video=0))) == 4
    motion = next(work.glob("avatar/**/flame_param.npz"))
    assert main(["render", str(work / "avatar"), "--out", str(work / "frames"), "--motion", str(motion), *size]) == 0
    assert len(list((work / "frames").glob("*.png"))) == 5


def test_resume_of_a_finished_fit_changes_nothing(work, capsys):
    before = (work / "avatar" / "history.json").read_text()
    assert main(["fit", str(work / "capture"), "--out", str(work / "avatar"), "--iterations", "20", "--resume"]) == 0
    assert "0 iterations" in capsys.readouterr().out
    assert (work / "avatar" / "history.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{}/absent", "--out", "{}/x"], "absent"),
        (["eval", "{}/absent", "{}/capture", "--out", "{}/x"], "absent"),
        (["fit", "{}/capture", "--out", "{}/avatar", "--iterations", "30", "--resume"], "iterations"),
        (["render", "{}/avatar", "--out", "{}/x.mp4", "--orbit", "--camera", "0", "0", "1"], "--orbit cannot be combined"),
        (["render", "{}/avatar", "--out", "{}/x.gif"], "x.gif"),
        (["track", "{}/absent.mp4", "--out", "{}/x", "--models", "{}"], "face_landmarker.task"),
        (["synth", "--out", "{}/x", "--size", "0"], "size must be in 1..4096, got 0"),
        (["synth", "--out", "{}/x", "--fps", "nan"], "fps must be > 0"),
        (["synth", "--out", "{}/x", "--hair", "mullet"], "hair must be"),
        (["eval", "{}/avatar", "{}/capture", "--out", "{}/x", "--max-frames", "0"], "max_frames must be at least 1"),
        (["eval", "{}/avatar", "{}/capture", "--out", "{}/x", "--samples", "-1"], "samples at least 0"),
        (["track", "{}/absent.mp4", "--out", "{}/x", "--min-confidence", "2"], "min_confidence must be in 0..1, got 2"),
        (["track", "{}/absent.mp4", "--out", "{}/x", "--solver.iterations", "0"], "iterations must be at least 1, got 0"),
        (["fit", "{}/capture", "--out", "{}/x", "--lr.means", "nan"], "lr.means must be finite, got nan"),
        (["fit", "{}/capture", "--out", "{}/x", "--loss.ssim", "inf"], "loss.ssim must be finite, got inf"),
        (["synth", "--out", "{}/avatar/avatar.json"], "avatar.json: is a file"),
        (["fit", "{}/capture", "--out", "{}/avatar/avatar.json"], "avatar.json: is a file"),
        (["eval", "{}/avatar", "{}/capture", "--out", "{}/avatar/avatar.json"], "avatar.json: is a file"),
        (["track", "{}/absent.mp4", "--out", "{}/avatar/avatar.json"], "avatar.json: is a file"),
        (["track", "{}/absent.mp4", "--out", "{}/avatar"], "was not written by this: avatar.json, checkpoints, history.json and 2 more"),
    ],
)
def test_wrong_input_exits_with_2_and_one_line(work, capsys, arguments, message):
    assert main([a.format(work) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gafcore: ") and message in error
    assert not (work / "x").exists() and not (work / "x.mp4").exists()
