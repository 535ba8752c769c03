"""Reading .npz files from strangers: shapes are checked in the header, before anything is allocated, and nothing is unpickled."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gafcore.errors import InputError, MissingError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Whatever a damaged archive makes zipfile raise, and a damaged header NumPy, which reads headers with Python's own tokenizer.
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    struct.error,
)
_BROKEN_HEADER = (ValueError, SyntaxError, tokenize.TokenError, TypeError, KeyError)
_BROKEN = _BROKEN_ZIP + _BROKEN_HEADER


Shape = tuple[int | None, ...]
Shapes = Mapping[str, Shape | list[Shape]]


def read_npz(path: Path, expected: Shapes, optional: Shapes | None = None) -> dict[str, np.ndarray]:
    """Arrays by name as float32. Other arrays in the file are not looked at.

    Args:
        expected: Shapes by name, or the shapes that will do; None stands for any positive size.
        optional: The same for arrays that may be absent.

    Raises:
        MissingError: No such file.
        InputError: Not an npz file; an array is missing, has another shape or type, or holds NaN or infinity. The message names both.
    """
    optional = optional or {}
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            present = set(archive.namelist())
            missing = [name for name in expected if f"{name}.npy" not in present]
            if missing:
                raise InputError(f"{path}: array {missing[0]!r} is missing; it has {_names(present)}")
            wanted = {**expected, **{name: shape for name, shape in optional.items() if f"{name}.npy" in present}}
            return {name: _read(path, archive, name, shape) for name, shape in wanted.items()}
    except _BROKEN as error:
        raise InputError(f"{path}: not readable as an npz file ({error})") from None


def _read(path: Path, archive: zipfile.ZipFile, name: str, shape: Shape | list[Shape]) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise InputError(f"{path}: array {name!r} has format version {version}, expected 1.0 or 2.0")
        found, _, dtype = _HEADERS[version](file)
        shapes = shape if isinstance(shape, list) else [shape]
        if not any(_fits(found, s) for s in shapes):
            raise InputError(f"{path}: array {name!r} must be {' or '.join(map(_shape, shapes))}, got {_shape(found)}")
        if dtype.kind not in "fiu":
            raise InputError(f"{path}: array {name!r} must hold numbers, got {dtype}")
    with archive.open(f"{name}.npy") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    with np.errstate(over="ignore"):  # what overflows float32 is caught below as infinite
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: array {name!r} holds NaN or infinite values")
    return array


def _fits(found: tuple[int, ...], shape: Shape) -> bool:
    return len(found) == len(shape) and all(f == s if s is not None else 0 < f < 1_000_000 for f, s in zip(found, shape, strict=True))


def _shape(shape: Shape) -> str:
    return "[" + ", ".join("*" if s is None else str(s) for s in shape) + "]"


def _names(present: set[str]) -> str:
    return ", ".join(sorted(name.removesuffix(".npy") for name in present)[:20]) or "nothing"
