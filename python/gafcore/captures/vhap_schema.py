"""transforms*.json of the VHAP layout, read into checked records. Every refusal names the file, the frame and the field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gafcore.errors import InputError
from gafcore.files import inside, read_json
from gafcore.types import Camera

MAX_SIDE_PX = 16384
MAX_INDEX = 10_000_000
OPENGL_TO_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_RIGID_TOLERANCE = 1e-3  # rotations printed with few digits still pass
_AGREE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class FrameRecord:
    """One entry of `frames`. Paths are absolute and inside the capture's folder."""

    where: str
    file_path: str
    timestep_index: int
    timestep_id: str
    camera_index: int
    camera_id: str
    camera: Camera
    image: Path
    mask: Path | None
    params: Path


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, known to have a list under `frames`."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: must be a JSON object, got {_kind(document)}")
    if not isinstance(document.get("frames"), list):
        raise InputError(f"{path}: 'frames' must be a list, got {_kind(document.get('frames'))}")
    return document


def parse_frames(path: Path, document: dict[str, Any]) -> list[FrameRecord]:
    records = [_frame(path, f"{path}: frame {i}", document, entry) for i, entry in enumerate(document["frames"])]
    seen: dict[Any, int] = {}
    for i, record in enumerate(records):
        for key in (record.file_path, (record.timestep_index, record.camera_index)):
            if key in seen:
                what = "file_path" if isinstance(key, str) else "timestep and camera"
                raise InputError(f"{record.where}: repeats frame {seen[key]} (same {what})")
            seen[key] = i
    return records


def integer(where: str, obj: dict[str, Any], key: str, low: int, high: int) -> int:
    value = obj.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{where}: {key!r} must be a whole number in {low}..{high}, got {_short(value)}")
    return value


def number(where: str, obj: dict[str, Any], key: str, low: float = -1e9, high: float = 1e9) -> float:
    value: Any = obj.get(key)
    if not is_number(value) or not low <= value <= high:
        raise InputError(f"{where}: {key!r} must be a number in {low:g}..{high:g}, got {_short(value)}")
    return float(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)


def text(where: str, obj: dict[str, Any], key: str, default: str | None = None) -> str:
    value = obj.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} must be text, got {_short(value)}")
    return value


def matrix(where: str, obj: dict[str, Any], key: str) -> torch.Tensor:
    """A rigid 4x4 transform, float64."""
    rows: Any = obj.get(key)
    shaped = isinstance(rows, list) and len(rows) == 4 and all(isinstance(r, list) and len(r) == 4 for r in rows)
    if not shaped or not all(is_number(x) and abs(x) < 1e6 for row in rows for x in row):
        raise InputError(f"{where}: {key!r} must be a 4x4 matrix of finite numbers, got {_short(rows)}")
    value = torch.tensor(rows, dtype=torch.float64)
    rotation, last = value[:3, :3], torch.tensor([0, 0, 0, 1.0], dtype=torch.float64)
    rigid = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max() < _RIGID_TOLERANCE and torch.linalg.det(rotation) > 0
    if not rigid or (value[3] - last).abs().max() > _RIGID_TOLERANCE:
        raise InputError(f"{where}: {key!r} must be a rotation and a translation with last row 0 0 0 1, got {_short(rows)}")
    return value


def _frame(path: Path, where: str, document: dict[str, Any], entry: Any) -> FrameRecord:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: must be a JSON object, got {_kind(entry)}")
    timestep = integer(where, entry, "timestep_index", 0, MAX_INDEX)
    file_path = text(where, entry, "file_path")
    params_path = text(where, entry, "flame_param_path", f"flame_param/{timestep:05d}.npz")
    return FrameRecord(
        where=where,
        file_path=file_path,
        timestep_index=timestep,
        timestep_id=text(where, entry, "timestep_id", f"frame_{timestep:05d}"),
        camera_index=integer(where, entry, "camera_index", 0, MAX_INDEX) if "camera_index" in entry else 0,
        camera_id=text(where, entry, "camera_id", ""),
        camera=_camera(where, document, entry),
        image=_path(path, where, "file_path", file_path),
        mask=_path(path, where, "fg_mask_path", text(where, entry, "fg_mask_path")) if entry.get("fg_mask_path") is not None else None,
        params=_path(path, where, "flame_param_path", params_path),
    )


def _camera(where: str, document: dict[str, Any], entry: dict[str, Any]) -> Camera:
    """Intrinsics come from the frame, or from the top level where the frame has none."""
    both = {**document, **entry}
    width, height = integer(where, both, "w", 1, MAX_SIDE_PX), integer(where, both, "h", 1, MAX_SIDE_PX)
    fl_x, fl_y = (number(where, both, key, 1e-3, 1e7) for key in ("fl_x", "fl_y"))
    cx, cy = (number(where, both, key, -1e7, 1e7) for key in ("cx", "cy"))
    viewmat = torch.linalg.inv(matrix(where, entry, "transform_matrix") @ OPENGL_TO_OPENCV)
    if "viewmat" in entry:
        exact = matrix(where, entry, "viewmat")
        if (exact - viewmat).abs().max() > _AGREE_TOLERANCE * max(1.0, float(exact.abs().max())):
            raise InputError(f"{where}: 'viewmat' and 'transform_matrix' name different cameras; remove 'viewmat' if you edited the other")
        viewmat = exact
    K = torch.tensor([[fl_x, 0, cx], [0, fl_y, cy], [0, 0, 1]], dtype=torch.float64)
    return Camera(viewmat.float(), K.float(), width, height)


def _path(document: Path, where: str, key: str, relative: str) -> Path:
    try:
        return inside(document.parent, relative)
    except (InputError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{where}: {key!r}: {error}") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    names[type(None)] = "nothing"
    return names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
