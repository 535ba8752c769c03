"""Rows: fitted once, kept, and gone on with."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from gafcore.errors import InputError
from gafcore.evaluation import ablation as module
from gafcore.evaluation.ablation import Ablation, RowSpec, fewer_frames
from gafcore.evaluation.presets import PRESETS, PriorSources
from gafcore.evaluation.sides import frames_around
from gafcore.fitting import FitConfig, Interrupted, PseudoTruths, fit
from tests.cases.ball import ball_capture
from tests.cases.small_prior import tiny_prior

QUICK = FitConfig(iterations=3)
SMALL = tuple(name for name, preset in PRESETS.items() if preset.source == "prior" and preset.small is not None)


def tiny(name, sources):
    preset = PRESETS[name]
    return None if preset.small is None else PseudoTruths(tiny_prior(), preset.small)


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


@pytest.fixture
def study(capture, tmp_path):
    return Ablation(capture, QUICK, PriorSources(), tmp_path / "out", frames_around(capture), make=tiny)


def test_every_preset_of_a_small_prior_fits(study):
    rows = [study.row(RowSpec(name)) for name in ("none", *SMALL)]
    scores = [row.scores.novel["psnr"] for row in rows]
    assert all(row.not_run is None and row.processor_seconds > 0 and len(row.pictures) == 1 for row in rows)
    assert all(x != scores[0] for x in scores[1:])


def test_a_row_that_is_there_is_not_fitted_again(study, monkeypatch):
    first = study.row(RowSpec("full", 2))
    monkeypatch.setattr(module, "fit", None)
    again = study.row(RowSpec("full", 2))
    assert again.scores == first.scores and again.processor_seconds == first.processor_seconds
    assert float((again.pictures[0] - first.pictures[0]).abs().max()) <= 0.5 / 255 + 1e-6


def test_an_interrupted_row_goes_on_to_the_same_result(study, tmp_path, monkeypatch):
    whole = study.row(RowSpec("full"))

    def stopped(*args, **options):
        return fit(*args, **options, callback=lambda i, _: os.kill(os.getpid(), signal.SIGTERM) if i == 2 else None)

    elsewhere = replace(study, out=tmp_path / "elsewhere")
    monkeypatch.setattr(module, "fit", stopped)
    with pytest.raises(Interrupted):
        elsewhere.row(RowSpec("full"))
    monkeypatch.setattr(module, "fit", fit)
    row = elsewhere.row(RowSpec("full"))
    assert row.scores == whole.scores and row.processor_seconds is None


def test_a_row_whose_pictures_are_gone_is_made_again_from_its_checkpoint(study):
    first = study.row(RowSpec("none"))
    (study.out / "rows" / "none" / "view_0.png").unlink()
    assert study.row(RowSpec("none")).scores == first.scores and (study.out / "rows" / "none" / "view_0.png").is_file()


def test_rows_of_other_settings_are_not_mixed_in(study):
    study.row(RowSpec("none"))
    with pytest.raises(InputError, match=r"rows/none: holds a row that was made with other settings \(config.seed\); ask for the same"):
        replace(study, config=replace(QUICK, seed=1)).row(RowSpec("none"))
    with pytest.raises(InputError, match=r"other settings \(measured.*\)"):
        moved = study.capture.splits | {"novel_view": study.capture.splits["novel_view"][:2]}
        replace(study, capture=replace(study.capture, splits=moved)).row(RowSpec("none"))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"train": {"psnr": "x"}}', '{"processor_seconds": 1, "train": 3, "novel": {}, "far": {}, "expression": {}}']
)
def test_a_damaged_row_is_named(study, text):
    study.row(RowSpec("none"))
    (study.out / "rows" / "none" / "row.json").write_text(text)
    with pytest.raises(InputError, match=r"row.json: not a row of this version .*; remove .*rows/none to fit it again"):
        study.row(RowSpec("none"))


def test_damaged_settings_are_named(study):
    (study.out / "rows" / "none").mkdir(parents=True)
    (study.out / "rows" / "none" / "settings.json").write_text("[]")
    with pytest.raises(InputError, match=r"settings.json: must be an object, got list; remove"):
        study.row(RowSpec("none"))


def test_a_row_without_weights_says_so_and_touches_nothing(study):
    row = study.row(RowSpec("pretrained-sd"))
    assert row.scores is None and row.not_run == "needs --sd FOLDER --controlnet FOLDER" and not study.out.exists()


def test_fewer_frames(capture):
    """Of four training frames (numbers 0, 2, 4, 6); the order of time counts, not that of the numbers."""
    assert [fewer_frames(capture, n).splits["train"] for n in (1, 2, 3, 4)] == [(4,), (0, 6), (0, 2, 6), (0, 2, 4, 6)]
    mixed = replace(capture, splits=capture.splits | {"train": (6, 0, 4, 2)})
    assert fewer_frames(mixed, 2).splits["train"] == (0, 6) and fewer_frames(mixed, 2).splits["novel_view"] == (1, 3, 5, 7)
    for n in (0, 5):
        with pytest.raises(InputError, match=rf"split 'train' has 4 frames, so {n} cannot be chosen; name 1 to 4"):
            fewer_frames(capture, n)


def test_the_number_of_frames_decides(study):
    rows = {n: study.row(RowSpec("none", n)) for n in (4, 1)}
    assert rows[4].scores.novel != rows[1].scores.novel
    assert {p.name for p in (study.out / "rows").iterdir()} == {"none-4-frames", "none-1-frames"}
    one = fit(fewer_frames(study.capture, 1), QUICK, progress=False).avatar
    picture = module.picture(one, study.capture, study.shown[0])
    assert torch.equal(picture, rows[1].pictures[0])


def test_what_a_row_keeps(study):
    study.row(RowSpec("none"))
    told = json.loads((study.out / "rows" / "none" / "row.json").read_text())
    assert set(told) == {"processor_seconds", "train", "novel", "far", "expression"}
