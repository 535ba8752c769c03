"""Model files are found in the order stated, and their absence is explained."""

from __future__ import annotations

import pytest

from gafcore.errors import InputError, MissingError
from gafcore.tracking import models
from gafcore.tracking.detect import Detector


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(models.MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(models, "cache_dir", lambda: tmp_path / "cache")


def _fill(folder, *names):
    folder.mkdir(parents=True)
    for name in names or (models.FACE_MODEL, models.PERSON_MODEL):
        (folder / name).write_bytes(b"model")
    return folder


def test_order_is_argument_environment_cache(monkeypatch, tmp_path):
    cached = _fill(tmp_path / "cache" / "models")
    assert models.find_models().face == cached / models.FACE_MODEL
    named = _fill(tmp_path / "environment")
    monkeypatch.setenv(models.MODELS_VARIABLE, str(named))
    assert models.find_models().person == named / models.PERSON_MODEL
    given = _fill(tmp_path / "given")
    assert models.find_models(given).face == given / models.FACE_MODEL


def test_the_name_on_the_download_page_will_do(tmp_path):
    folder = _fill(tmp_path / "m", models.FACE_MODEL, models.PERSON_MODEL_ALIAS)
    assert models.find_models(folder).person == folder / models.PERSON_MODEL_ALIAS


def test_absent_files_are_named_with_the_download_pages(tmp_path):
    folder = _fill(tmp_path / "half", models.FACE_MODEL)
    with pytest.raises(MissingError) as error:
        models.find_models(folder)
    message = str(error.value)
    assert message.startswith(f"{folder}: {models.PERSON_MODEL} not found")
    assert all(page in message for page in models.MODELS_PAGES)
    assert "--models" in message


def test_mediapipe_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    with pytest.raises(MissingError, match=r'pip install "gafcore\[track\]"'):
        models.import_mediapipe()


def test_a_damaged_model_is_named(tmp_path):
    pytest.importorskip("mediapipe", reason="tracking needs mediapipe: pip install 'gafcore[track]'")
    files = [tmp_path / "face_landmarker.task", tmp_path / "selfie_segmentation.tflite"]
    for file in files:
        file.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"face_landmarker\.task: MediaPipe cannot open this model"):
        Detector(models.ModelFiles(*files))
