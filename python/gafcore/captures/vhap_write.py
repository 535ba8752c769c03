"""Writing a capture in VHAP's layout: everything, or nothing on failure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gafcore.captures.splits import TRAIN, check_splits
from gafcore.captures.vhap_schema import OPENGL_TO_OPENCV
from gafcore.errors import InputError
from gafcore.files import atomic_folder, check_replaceable, write_json
from gafcore.progress import track
from gafcore.rigs.load import portable_spec
from gafcore.types import Camera, Capture, Frame, RigParams

_CANONICAL_JAW = (0.3, 0.0, 0.0)  # the layout's canonical file opens the mouth a little
_PNG_EFFORT = 3  # of 9: a tenth larger than the default 6, and more than twice as fast
_MARKERS = ("transforms.json", "rig.json")  # together they tell a capture of ours from others' data
_FILES = (*_MARKERS, "transforms_train.json", "transforms_val.json", "transforms_test.json", "canonical_flame_param.npz")
_BESIDE = ("report.json", "overlay.png", "overlay.mp4")  # what tracking adds
_FOLDERS = {"images": r"\d{5,}_\d{2,}\.png", "fg_masks": r"\d{5,}_\d{2,}\.png", "flame_param": r"\d{5,}\.npz"}


def write(capture: Capture, path: str | Path, *, threads: int = 2) -> Path:
    """Write `capture` as the folder `path`, replacing what is there only when all is written.

    Pictures and masks are stored with 8 bits, parameters and cameras to the last bit of float32.

    Raises:
        InputError: As `check_target`; or two frames share timestep and camera, splits mix training with held-out frames, a picture
            does not have its camera's size, or a camera has skew. A full disk raises OSError; nothing is left behind.
    """
    path = Path(path)
    _check(path, capture)
    with atomic_folder(path, _foreign) as folder:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True)
        _write_params(folder, capture.params)
        write_json(folder / "rig.json", portable_spec(capture.rig, path))
        _write_pixels(folder, capture.frames, threads)
        _write_documents(folder, capture)
    return path


def check_target(path: str | Path) -> None:
    """Call this before the work whose result `write` puts at `path`.

    Raises:
        InputError: `path` is a file, or a folder with anything in it that is not of a capture that gafcore wrote.
    """
    check_replaceable(path, _foreign)


def _foreign(folder: Path) -> list[str]:
    ours = all((folder / name).is_file() for name in _MARKERS)
    names: list[str] = []
    for entry in sorted(folder.iterdir()):
        if ours and entry.name in _FOLDERS and entry.is_dir():
            pattern = _FOLDERS[entry.name]
            names += [f"{entry.name}/{x.name}" for x in sorted(entry.iterdir()) if x.is_dir() or not re.fullmatch(pattern, x.name)]
        elif not ours or entry.name not in (*_FILES, *_BESIDE) or entry.is_dir():
            names.append(entry.name)
    return names


def _check(path: Path, capture: Capture) -> None:
    check_splits(str(path), capture.splits, capture.frames)
    views: dict[tuple[int, int], int] = {}
    for i, frame in enumerate(capture.frames):
        if not 0 <= frame.timestep < len(capture.params):
            raise InputError(f"frame {i} has timestep {frame.timestep}, but there are parameters for {len(capture.params)} timesteps")
        first = views.setdefault((frame.timestep, frame.camera_index), i)
        if first != i:
            raise InputError(f"frames {first} and {i} are both timestep {frame.timestep}, camera {frame.camera_index}")
        K = frame.camera.K
        if float(K[0, 1]) != 0 or float(K[1, 0]) != 0 or K[2].tolist() != [0, 0, 1]:
            raise InputError(f"frame {i}: K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in this layout, got {K.tolist()}")


def _write_params(folder: Path, params: RigParams) -> None:
    arrays = {name: x.detach().cpu().float().numpy() for name, x in params.items() if x is not None}
    shared = {"shape": arrays.pop("shape")}
    if "static_offset" in arrays:
        shared["static_offset"] = arrays.pop("static_offset")[None]
    for t in range(len(params)):
        _savez(folder / "flame_param" / f"{t:05d}.npz", {**shared, **{name: x[t : t + 1] for name, x in arrays.items()}})
    canonical = {name: np.zeros_like(x[:1]) for name, x in arrays.items()}
    canonical["jaw_pose"] = np.array([_CANONICAL_JAW], dtype=np.float32)
    _savez(folder / "canonical_flame_param.npz", {**shared, **canonical})


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes every keyword for its one option


def _write_pixels(folder: Path, frames: Sequence[Frame], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in track(pool.map(lambda i: _write_frame(folder, i, frames[i]), range(len(frames))), "Writing pictures", len(frames)):
            pass


def _write_frame(folder: Path, i: int, frame: Frame) -> None:
    size = (frame.camera.height, frame.camera.width)
    for kind, pixels, channels in (("images", frame.image, (3,)), ("fg_masks", frame.mask, ())):
        if pixels is None:
            continue
        values = pixels()
        if tuple(values.shape) != size + channels:
            raise InputError(f"frame {i}: {kind} must be {list(size + channels)}, got {list(values.shape)}")
        array = (values.detach().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        Image.fromarray(array).save(folder / kind / _file_name(frame), compress_level=_PNG_EFFORT)


def _file_name(frame: Frame) -> str:
    return f"{frame.timestep:05d}_{frame.camera_index:02d}.png"


def _write_documents(folder: Path, capture: Capture) -> None:
    entries = [_entry(frame) for frame in capture.frames]
    extra = {"background": list(capture.background), "splits": {k: list(v) for k, v in capture.splits.items()}, "info": capture.info}
    everything = _document(entries, list(range(len(capture.params))))
    write_json(folder / "transforms.json", {**everything, **extra})
    splits = capture.splits or {TRAIN: tuple(range(len(entries)))}
    known = {TRAIN: "train", "novel_view": "val", "novel_expression": "test", "test": "test"}
    for suffix in ("train", "val", "test"):
        numbers = sorted({i for name, ids in splits.items() if known.get(name) == suffix for i in ids})
        chosen = [entries[i] for i in numbers]
        write_json(folder / f"transforms_{suffix}.json", _document(chosen, sorted({e["timestep_index"] for e in chosen})))


def _document(entries: list[dict[str, Any]], timesteps: list[int]) -> dict[str, Any]:
    """The top level repeats the first frame's intrinsics, where some readers look for them."""
    keys = ("cx", "cy", "fl_x", "fl_y", "h", "w", "camera_angle_x", "camera_angle_y")
    top = {key: entries[0][key] for key in keys} if entries else {}
    cameras = sorted({e["camera_index"] for e in entries})
    return {"frames": entries, **top, "timestep_indices": timesteps, "camera_indices": cameras}


def _entry(frame: Frame) -> dict[str, Any]:
    name = _file_name(frame)
    entry = {
        "timestep_index": frame.timestep,
        "timestep_index_original": frame.timestep,
        "timestep_id": frame.timestep_id,
        "camera_index": frame.camera_index,
        "camera_id": frame.camera_id,
        **_camera_entry(frame.camera),
        "file_path": f"images/{name}",
        "flame_param_path": f"flame_param/{frame.timestep:05d}.npz",
    }
    return entry if frame.mask is None else {**entry, "fg_mask_path": f"fg_masks/{name}"}


def _camera_entry(camera: Camera) -> dict[str, Any]:
    """`transform_matrix` is what others read; inverting it twice can lose the last bit, so `viewmat` is stored beside it."""
    viewmat, K = camera.viewmat.detach().cpu().double(), camera.K.detach().cpu().double()
    fl_x, fl_y = float(K[0, 0]), float(K[1, 1])
    return {
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "fl_x": fl_x,
        "fl_y": fl_y,
        "h": camera.height,
        "w": camera.width,
        "camera_angle_x": 2 * math.atan(camera.width / (2 * fl_x)),
        "camera_angle_y": 2 * math.atan(camera.height / (2 * fl_y)),
        "transform_matrix": (torch.linalg.inv(viewmat) @ OPENGL_TO_OPENCV).tolist(),
        "viewmat": viewmat.tolist(),
    }
