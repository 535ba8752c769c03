"""Reading and writing without accidents: whole files or none, and never outside the folder that was named."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gafcore.errors import InputError, MissingError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure it is removed and `path` stays as it was.

    The temporary path keeps the suffix, because many writers choose their format by it. It may become a file or a folder;
    an existing folder at `path` is replaced whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = parent / path.name
    try:
        yield temporary
        if path.is_dir() and not path.is_symlink():
            os.rename(path, parent / "replaced")
        os.replace(temporary, path)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused: other readers reject them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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


def inside(root: str | Path, relative: str) -> Path:
    """`root / relative`, resolved.

    Raises:
        InputError: The path leaves `root`, be it by `..`, an absolute path or a symbolic link.
    """
    base = Path(root).resolve()
    if not isinstance(relative, str) or "\0" in relative:
        raise InputError(f"{base}: a path must be text, got {relative!r}")
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(f"{relative!r} leads out of {base}; data folders must be self-contained")
    return path
