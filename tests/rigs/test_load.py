from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gafcore.errors import InputError, MissingError
from gafcore.rigs import load_rig, read_spec, write_spec
from tests.rigs.test_ict_files import tiny_arrays


def test_spec_gives_the_same_rig_again(procedural, tmp_path):
    write_spec(tmp_path / "rig.json", procedural)
    again = load_rig(read_spec(tmp_path / "rig.json"))
    assert again.spec == procedural.spec
    torch.testing.assert_close(again.template, procedural.template)


def test_device_is_taken():
    assert load_rig("procedural", device="meta").template.device.type == "meta"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("flame", "unknown rig 'flame'; known are"),
        ("procedural:x", "unknown rig"),
        ("ict", "ict:PATH"),
        ("ict:", "ict:PATH"),
        ("", "unknown rig"),
        ({"name": "nobody"}, "unknown rig 'nobody'"),
        ({}, "unknown rig None"),
        ({"name": ["ict"]}, "unknown rig"),
        ({"name": "procedural", "path": "x"}, r"does not know \['path'\]"),
        ({"name": "procedural", "version": 99}, "version 99"),
        ({"name": "ict"}, "path must be text"),
        ({"name": "ict", "path": "a\0b"}, "path must be text"),
        ({"name": "ict", "path": "x", "parts": "face"}, "parts must be a list"),
        ({"name": "ict", "path": "x", "parts": ["nose"]}, "parts must include 'face'"),
        ({"name": "ict", "path": "x", "sha256": 1}, "sha256 must be text"),
        (7, "text or by a dict, got int"),
    ],
)
def test_wrong_descriptions(spec, message):
    with pytest.raises(InputError, match=message):
        load_rig(spec)


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(MissingError, match="github.com/ICT-VGL"):
        load_rig(f"ict:{tmp_path / 'absent.npz'}")


def test_another_model_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **tiny_arrays())
    with pytest.raises(InputError, match="26719 vertices and 26384 faces, got 5 vertices and 2 faces"):
        load_rig(f"ict:{tmp_path / 'a.npz'}")


def test_another_file_of_the_same_name_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **tiny_arrays())
    with pytest.raises(InputError, match="not the rig that was saved"):
        load_rig({"name": "ict", "path": str(tmp_path / "a.npz"), "sha256": "0" * 64})


def test_spec_file_moves_together_with_the_rig_file(ict, tmp_path):
    write_spec(tmp_path / "deep" / "rig.json", ict)
    stored = json.loads((tmp_path / "deep" / "rig.json").read_text())
    assert not stored["path"].startswith("/")
    assert read_spec(tmp_path / "deep" / "rig.json") == ict.spec


def test_spec_file_must_hold_an_object(tmp_path):
    (tmp_path / "rig.json").write_text("[]")
    with pytest.raises(InputError, match="JSON object that describes a rig, got list"):
        read_spec(tmp_path / "rig.json")
