from __future__ import annotations

import pytest

from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_path, inside, read_json, write_json


def test_atomic_path_replaces_on_success(tmp_path):
    target = tmp_path / "a" / "x.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["x.txt"]


def test_atomic_path_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_atomic_path_replaces_a_folder_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").touch()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [p.name for p in target.iterdir()] == ["fresh"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "a/../../x", "link/x", "a\0b"])
def test_inside_refuses_to_leave(tmp_path, relative):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        inside(root, relative)


def test_inside_resolves(tmp_path):
    assert inside(tmp_path, "a/../b/c.png") == (tmp_path / "b" / "c.png").resolve()


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": [1, 2.5, None]})
    assert read_json(path) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert read_json(path) == {"a": [1, 2.5, None]}
    path.write_text("{")
    with pytest.raises(InputError, match=r"x\.json: not readable as JSON .*line 1"):
        read_json(path)
    with pytest.raises(MissingError, match="no such file"):
        read_json(tmp_path / "absent.json")
