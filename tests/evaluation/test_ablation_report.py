from __future__ import annotations

import json
from xml.etree import ElementTree

import torch
from PIL import Image

from gafcore.evaluation.ablation import Row, RowSpec
from gafcore.evaluation.ablation_report import row_line, to_markdown, write_ablation
from gafcore.evaluation.sides import SideScores, frames_around
from tests.cases.ball import ball_capture


def values(psnr: float) -> dict[str, float]:
    return {"psnr": psnr, "ssim": 0.5, "structure": 1.25}


def row(preset: str, psnr: float, frames: int | None = None) -> Row:
    scores = SideScores(values(30.0), values(psnr), {}, values(psnr + 1) if preset == "full" else {})
    return Row(RowSpec(preset, frames), scores, None, 2.5, [torch.zeros(48, 48, 3)])


SKIPPED = Row(RowSpec("pretrained-sd"), not_run="needs --sd FOLDER --controlnet FOLDER")


def test_columns_are_those_that_some_row_has_and_skipped_rows_say_why():
    lines = to_markdown([row("none", 20.0), SKIPPED, row("full", 21.125)], ["A note."]).splitlines()
    assert lines[0].count("|") == 7 and "LPIPS" not in lines[0] and "beyond" not in lines[0]
    assert lines[2] == "| none | 20.00 | 0.5000 |  |  | 30.00 |"
    assert lines[3] == "| pretrained-sd | not run: needs --sd FOLDER --controlnet FOLDER |  |  |  |  |"
    assert lines[4] == "| full | 21.12 | 0.5000 | 22.12 | 0.5000 | 30.00 |" and lines[-1] == "A note."


def test_lines_of_the_log():
    assert row_line(SKIPPED).strip() == "pretrained-sd: not run: needs --sd FOLDER --controlnet FOLDER"
    assert row_line(row("full", 21.0, 8)).strip() == "8 full: training frames 30.00 dB, novel views 21.00 dB, novel expressions 22.00 dB"


def test_files(tmp_path):
    shown = frames_around(ball_capture())
    write_ablation(tmp_path, "ablation", [row("none", 20.0), SKIPPED], shown, ["A note."])
    assert {p.name for p in tmp_path.iterdir()} == {"ablation.json", "ablation.md", "ablation.png"}
    told = json.loads((tmp_path / "ablation.json").read_text())
    assert told["notes"] == ["A note."] and told["rows"][0]["scores"]["novel"]["psnr"] == 20.0
    assert told["rows"][1] == {
        "preset": "pretrained-sd", "frames": None, "not_run": SKIPPED.not_run, "processor_seconds": None, "scores": None
    }  # fmt: skip
    with Image.open(tmp_path / "ablation.png") as image:
        assert image.height == 18 + 2 * 180  # headings, truth and the row that was run


def test_the_plot_has_a_line_for_each_preset(tmp_path):
    rows = [row(preset, psnr, n) for n, psnr in ((8, 22.0), (1, 20.0)) for preset in ("none", "full")]
    write_ablation(tmp_path, "frames", rows, frames_around(ball_capture()))
    svg = (tmp_path / "frames.svg").read_text()
    titles = [e.text for e in ElementTree.fromstring(svg).iter() if e.get("class") == "title"]
    assert titles == ["novel views: PSNR, dB", "novel views: SSIM", "novel expressions: PSNR, dB", "novel expressions: SSIM"]
    assert ">none</text>" in svg and ">full</text>" in svg and svg.count("<polyline") == 8


def test_nothing_was_run(tmp_path):
    write_ablation(tmp_path, "ablation", [SKIPPED], frames_around(ball_capture()))
    assert (tmp_path / "ablation.md").read_text().splitlines()[0].startswith("|  |")
