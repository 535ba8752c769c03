"""Captures on disk in the layout of VHAP's export, which GaussianAvatars reads (docs/captures.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gafcore.captures.arrays import read_npz
from gafcore.captures.cache import DEFAULT_BYTES, ImageCache
from gafcore.captures.pictures_source import BROKEN_PICTURE
from gafcore.captures.splits import TRAIN, check_splits
from gafcore.captures.vhap_schema import MAX_INDEX, FrameRecord, is_number, parse_frames, read_document
from gafcore.captures.vhap_write import write
from gafcore.errors import GafError, InputError, MissingError
from gafcore.rigs import load_rig
from gafcore.rigs.base import Rig
from gafcore.rigs.load import read_spec
from gafcore.types import Capture, Frame, RigParams

__all__ = ["read", "write"]

SPLIT_FILES = {TRAIN: "transforms_train.json", "novel_view": "transforms_val.json", "test": "transforms_test.json"}
WHITE = (1.0, 1.0, 1.0)


def read(path: str | Path, *, rig: Rig | None = None, cache_bytes: int = DEFAULT_BYTES) -> Capture:
    """Read a capture. Parameters are loaded and checked at once, pixels when a frame is asked for them.

    Args:
        path: The folder with transforms.json.
        rig: Use this rig instead of the one that rig.json names (FLAME where there is no rig.json).
        cache_bytes: Limit on decoded pictures and masks held in memory, 8 bits a value.

    Raises:
        MissingError: The folder, a file in it, or the rig is absent.
        InputError: Something is malformed, leaves the folder, or mixes training with held-out frames. The message names file and field.
    """
    root = Path(path)
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder")
    document, records = _documents(root)
    rig = rig if rig is not None else _load_rig(root)
    params, row_of = _params(root, document, records, rig)
    cache = ImageCache(cache_bytes)
    background = _background(root, document)
    frames = tuple(_frame(record, row_of[record.timestep_index], cache, background) for record in records)
    splits = _splits(root, document, records)
    check_splits(str(root), splits, frames)
    info = document.get("info", {})
    if not isinstance(info, dict):
        raise InputError(f"{root / 'transforms.json'}: 'info' must be an object")
    return Capture(frames, rig, params, splits, background, info)


def _documents(root: Path) -> tuple[dict[str, Any], list[FrameRecord]]:
    """transforms.json, or the split files taken together where a capture has only those."""
    main = root / "transforms.json"
    if main.exists():
        document = read_document(main)
        return document, _nonempty(main, parse_frames(main, document))
    parts = [root / name for name in SPLIT_FILES.values() if (root / name).exists()]
    if not parts:
        raise MissingError(f"{main}: no such file; a capture in VHAP's layout has transforms.json or transforms_train.json")
    documents = [read_document(part) for part in parts]
    by_file = {r.file_path: r for part, document in zip(parts, documents, strict=True) for r in parse_frames(part, document)}
    return documents[0], _nonempty(parts[0], list(by_file.values()))


def _nonempty(path: Path, records: list[FrameRecord]) -> list[FrameRecord]:
    if not records:
        raise InputError(f"{path}: 'frames' is empty")
    for record in records:
        for field, file in (("file_path", record.image), ("fg_mask_path", record.mask), ("flame_param_path", record.params)):
            if file is not None and not file.is_file():
                raise MissingError(f"{record.where}: {field!r} names {file}, which does not exist")
    return records


def _load_rig(root: Path) -> Rig:
    path = root / "rig.json"
    if not path.exists():
        try:
            return load_rig("flame")
        except (GafError, ValueError) as error:
            reason = f"{root} has no rig.json, so it is VHAP data on the FLAME rig, which this version cannot load"
            raise MissingError(f"{reason} ({error})") from None
    try:
        return load_rig(read_spec(path))
    except GafError as error:
        raise type(error)(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: names no rig that can be loaded ({error})") from None


def _params(root: Path, document: dict[str, Any], records: list[FrameRecord], rig: Rig) -> tuple[RigParams, dict[int, int]]:
    """Parameters of all timesteps, and the row of each timestep index."""
    files = {t: root / "flame_param" / f"{t:05d}.npz" for t in _listed_timesteps(root, document)}
    files = {t: file for t, file in files.items() if file.is_file()}
    for record in records:
        other = files.setdefault(record.timestep_index, record.params)
        if other.resolve() != record.params:
            raise InputError(f"{record.where}: 'flame_param_path' is {record.params}, but the same timestep also has {other}")
    timesteps = sorted(files)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("translation", "rotation", "neck_pose", "jaw_pose"), (1, 3))
    shapes |= {"eyes_pose": (1, 6), "shape": (rig.n_shape,), "expr": (1, rig.n_expr)}
    offset = (1, rig.n_vertices, 3)
    rows = [read_npz(files[t], shapes, {"static_offset": offset, "dynamic_offset": offset}) for t in timesteps]
    for t, row in zip(timesteps, rows, strict=True):
        _check_person(files[t], row, files[timesteps[0]], rows[0])
    moving = {name: torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in shapes if name != "shape"}
    static = torch.from_numpy(rows[0]["static_offset"][0]) if "static_offset" in rows[0] else None
    return RigParams(shape=torch.from_numpy(rows[0]["shape"]), static_offset=static, **moving), {t: i for i, t in enumerate(timesteps)}


def _listed_timesteps(root: Path, document: dict[str, Any]) -> list[int]:
    listed = document.get("timestep_indices", [])
    if not isinstance(listed, list) or not all(isinstance(t, int) and not isinstance(t, bool) and 0 <= t <= MAX_INDEX for t in listed):
        raise InputError(f"{root / 'transforms.json'}: 'timestep_indices' must be a list of whole numbers")
    return listed


def _check_person(path: Path, row: dict[str, np.ndarray], first_path: Path, first: dict[str, np.ndarray]) -> None:
    """One capture shows one person: what FLAME repeats in every file must be the same in every file."""
    for name in RigParams.SHARED:
        if (name in row) != (name in first) or (name in row and not np.array_equal(row[name], first[name])):
            raise InputError(f"{path}: array {name!r} differs from the one in {first_path.name}; a capture has one person")
    if row.get("dynamic_offset", np.zeros(1)).any():
        raise InputError(f"{path}: array 'dynamic_offset' is not zero; per-timestep vertex offsets are not supported")


def _background(root: Path, document: dict[str, Any]) -> tuple[float, float, float]:
    value = document.get("background", list(WHITE))
    if not isinstance(value, list) or len(value) != 3 or not all(is_number(x) and 0 <= x <= 1 for x in value):
        raise InputError(f"{root / 'transforms.json'}: 'background' must be three numbers in 0..1, got {str(value)[:80]}")
    red, green, blue = (float(x) for x in value)
    return red, green, blue


def _splits(root: Path, document: dict[str, Any], records: list[FrameRecord]) -> dict[str, tuple[int, ...]]:
    """Our own `splits` where present, else VHAP's files: val is "novel_view", test is "test"; with neither, everything trains."""
    where = root / "transforms.json"
    if "splits" in document:
        splits = document["splits"]
        valid = isinstance(splits, dict) and all(isinstance(ids, list) for ids in splits.values())
        if not valid or not all(isinstance(i, int) and not isinstance(i, bool) for ids in splits.values() for i in ids):
            raise InputError(f"{where}: 'splits' must map names to lists of frame numbers")
        return {name: tuple(ids) for name, ids in splits.items()}
    files = {name: root / file for name, file in SPLIT_FILES.items() if (root / file).exists()}
    if not files:
        return {TRAIN: tuple(range(len(records)))}
    number_of = {record.file_path: i for i, record in enumerate(records)}
    return {name: _numbers(file, number_of) for name, file in files.items()}


def _numbers(path: Path, number_of: dict[str, int]) -> tuple[int, ...]:
    numbers = []
    for i, entry in enumerate(read_document(path)["frames"]):
        file_path = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(file_path, str) or file_path not in number_of:
            raise InputError(f"{path}: frame {i}: 'file_path' {str(file_path)[:80]!r} is not a frame of transforms.json")
        numbers.append(number_of[file_path])
    return tuple(numbers)


@dataclass(frozen=True)
class _Pixels:
    """A picture or mask on disk; calling it decodes it, through the cache, to float32 in 0..1."""

    where: str
    path: Path
    size: tuple[int, int]
    to_array: Callable[[Image.Image], np.ndarray]
    cache: ImageCache

    def __call__(self) -> Float[Tensor, "H W *C"]:
        return torch.from_numpy(self.cache.get(self.path, self._decode)).float() / 255

    def _decode(self) -> np.ndarray:
        try:
            with Image.open(self.path) as image:
                if image.size != self.size:
                    found, said = ("x".join(map(str, size)) for size in (image.size, self.size))
                    raise InputError(f"{self.where}: {self.path} is {found}, but 'w' and 'h' say {said}")
                return self.to_array(image)
        except BROKEN_PICTURE as error:
            raise InputError(f"{self.where}: {self.path} cannot be decoded ({error})") from None


def _frame(record: FrameRecord, row: int, cache: ImageCache, background: Iterable[float]) -> Frame:
    size = (record.camera.width, record.camera.height)
    behind = tuple(round(255 * x) for x in background)

    def to_rgb(image: Image.Image) -> np.ndarray:
        if "A" not in image.getbands():
            return np.array(image.convert("RGB"))
        return np.array(Image.alpha_composite(Image.new("RGBA", image.size, (*behind, 255)), image.convert("RGBA")).convert("RGB"))

    def to_alpha(image: Image.Image) -> np.ndarray:
        return np.array(image.convert("L"))

    return Frame(
        camera=record.camera,
        timestep=row,
        camera_index=record.camera_index,
        image=_Pixels(record.where, record.image, size, to_rgb, cache),
        mask=_Pixels(record.where, record.mask, size, to_alpha, cache) if record.mask is not None else None,
        camera_id=record.camera_id,
        timestep_id=record.timestep_id,
    )
