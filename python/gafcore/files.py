"""Reading and writing without accidents: whole files or none, and never outside the folder that was named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gafcore.errors import InputError, MissingError

Foreign = Callable[[Path], list[str]]
"""Given a folder: the names of what is in it and would be missed if the folder were replaced."""

_SHOWN = 3


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` for one file; on success it is renamed to `path`, on failure `path` stays as it was.

    The temporary path keeps the suffix, because many writers choose their format by it. With `durable` the file and its name are
    on the disk when this ends, also if the power fails right after.

    Raises:
        InputError: There is a folder at `path`.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, but a file is to be written here")
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield parent / path.name
        if durable:
            _sync(parent / path.name)
        os.replace(parent / path.name, path)
        if durable:
            _sync(path.parent)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(path: str | Path, foreign: Foreign) -> Iterator[Path]:
    """As `atomic_path` for a folder, which the body makes. A folder at `path` is replaced whole, if all in it is ours.

    Raises:
        InputError: As `check_replaceable`, before and after the body.
    """
    path = Path(path).resolve()
    check_replaceable(path, foreign)
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = parent / "replaced"
    try:
        yield parent / path.name
        check_replaceable(path, foreign)
        if path.exists():
            os.rename(path, old)
        os.replace(parent / path.name, path)
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        shutil.rmtree(parent, ignore_errors=True)


def check_output_folder(path: str | Path) -> None:
    """Call this before the work whose results go into `path`.

    Raises:
        InputError: A file is in the way.
    """
    for place in (Path(path), *Path(path).parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise InputError(f"{place}: is a file, but a folder is to be written here")


def check_replaceable(path: str | Path, foreign: Foreign) -> None:
    """Call this before the work whose results replace the folder `path`.

    Raises:
        InputError: A file is in the way, or the folder holds something that `foreign` names.
    """
    check_output_folder(path)
    names = foreign(Path(path)) if Path(path).is_dir() else []
    if names:
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise InputError(f"{path}: would be replaced whole, but holds what was not written by this: {shown}; name another folder")


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, durable: bool = False) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused: other readers reject them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable)


def read_json(path: str | Path) -> Any:
    """The JSON in `path`.

    Raises:
        MissingError: There is no such file.
        InputError: It is not JSON; the message names the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def check_name(path: str | Path) -> None:
    """Refuse what the file system cannot hold, where `Path.is_file` would raise OSError.

    Raises:
        InputError: A part of the path is longer than 255 bytes, or the whole longer than 4,000, or it is not Unicode.
    """
    try:
        whole = str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(path)[:40]!r} is not the name of a file: it is not Unicode") from None
    if len(whole) > 4000 or any(len(part) > 255 for part in whole.split(b"/")):
        raise InputError(f"{str(path)[:40]!r}... is longer than a file's name can be")


def inside(root: str | Path, relative: str) -> Path:
    """`root / relative`, resolved.

    Raises:
        InputError: The path leaves `root`, be it by `..`, an absolute path or a symbolic link, or no file can have such a name.
    """
    base = Path(root).resolve()
    if not isinstance(relative, str) or "\0" in relative:
        raise InputError(f"{base}: a path must be text, got {relative!r}")
    check_name(relative)
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(f"{relative!r} leads out of {base}; data folders must be self-contained")
    return path
