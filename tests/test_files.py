from __future__ import annotations

import pytest

from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_folder, atomic_path, check_output_folder, inside, read_json, write_json


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


def test_atomic_path_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match="is a folder, but a file is to be written here"), atomic_path(tmp_path):
        pytest.fail("refused before the work")


def all_but_ours(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != "ours")


@pytest.fixture
def target(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ours").write_text("old")
    return tmp_path / "out"


def test_atomic_folder_replaces_its_own_whole(target):
    with atomic_folder(target, all_but_ours) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [p.name for p in target.iterdir()] == ["fresh"]
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_atomic_folder_refuses_what_is_not_ours(target):
    for i in range(5):
        (target / f"thesis{i}").touch()
    with pytest.raises(InputError, match="thesis0, thesis1, thesis2 and 2 more; name another"), atomic_folder(target, all_but_ours):
        pytest.fail("refused before the work")
    assert len(list(target.iterdir())) == 6


def test_atomic_folder_sees_what_came_meanwhile(target):
    with pytest.raises(InputError, match="thesis"), atomic_folder(target, all_but_ours) as temporary:
        temporary.mkdir()
        (target / "thesis").touch()
    assert (target / "ours").read_text() == "old"


def test_atomic_folder_puts_the_old_one_back(target, monkeypatch):
    with pytest.raises(FileNotFoundError), atomic_folder(target, all_but_ours):
        pass  # the body made nothing
    assert (target / "ours").read_text() == "old"

    def broken(*_):
        raise OSError("no")

    monkeypatch.setattr("gafcore.files.os.replace", broken)
    with pytest.raises(OSError, match="no"), atomic_folder(target, all_but_ours) as temporary:
        temporary.mkdir()
    assert (target / "ours").read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_file_in_the_way_of_a_folder(tmp_path):
    check_output_folder(tmp_path / "new" / "deep")
    (tmp_path / "x").touch()
    for path in (tmp_path / "x", tmp_path / "x" / "deep"):
        with pytest.raises(InputError, match="x: is a file, but a folder is to be written here"):
            check_output_folder(path)


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


@pytest.mark.parametrize("name", ["é" * 200, "a/" * 3000, "\ud800"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"file's name can be|not Unicode"):
        inside(tmp_path, name)
