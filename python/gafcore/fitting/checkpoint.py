"""Checkpoints: one safetensors file each, and `latest.json` that names the newest complete one.

`latest.json` is replaced only after the tensors are safely on disk, and older files are removed only after it is, too:
at any moment the file that it names is whole. A new fit sets an earlier one's checkpoints aside until its own first one is written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from gafcore.avatars.density import DensityStats
from gafcore.errors import GafError, InputError, MissingError
from gafcore.files import atomic_path, inside, read_json, write_json
from gafcore.fitting.config import FitConfig, to_json
from gafcore.fitting.state import HISTORY, FitState, make_state

FOLDER = "checkpoints"
PREVIOUS = "checkpoints.previous"
PREVIOUS_AVATAR = "avatar.previous.json"
_FORMAT = "gafcore-fit-checkpoint"
_VERSION = 1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointError(GafError):
    """A checkpoint could not be written. The one before it is intact."""


def save_checkpoint(out: str | Path, state: FitState, config: FitConfig, capture: dict[str, str]) -> Path:
    """Write `state` to `out/checkpoints`.

    Raises:
        CheckpointError: The disk is full or not writable; the message names the last good checkpoint.
    """
    folder = Path(out) / FOLDER
    path = folder / f"step_{state.iteration:06d}.safetensors"
    data = dump_tensors(_to_tensors(state))
    pointer = {
        "format": _FORMAT,
        "version": _VERSION,
        "iteration": state.iteration,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "config": to_json(config),
        "capture": capture,
    }
    try:
        with atomic_path(path, durable=True) as temporary:
            temporary.write_bytes(data)
        write_json(folder / "latest.json", pointer, durable=True)
    except OSError as error:
        reason = "the disk is full" if error.errno in _NO_SPACE else str(error)
        raise CheckpointError(f"{path}: checkpoint not written: {reason}; {_last_good(folder)}") from error
    for old in folder.glob("step_*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)
    shutil.rmtree(Path(out) / PREVIOUS, ignore_errors=True)
    return path


def check_no_unfinished(out: str | Path) -> None:
    """Call this before a new fit into `out`.

    Raises:
        InputError: A fit that was begun there is not finished, or its checkpoints cannot be read; they would be lost.
    """
    folder = Path(out) / FOLDER
    if not (folder / "latest.json").is_file():
        return
    advice = f"use --resume, or another --out, or remove {folder}"
    try:
        pointer = _read_pointer(folder / "latest.json")
    except InputError as error:
        raise InputError(f"{error}; {advice}") from None
    done, wanted = pointer["iteration"], pointer["config"].get("iterations")
    if not isinstance(wanted, int) or done < wanted:
        raise InputError(f"{out}: holds an unfinished fit (iteration {done} of {wanted}); {advice}")


def set_aside(out: str | Path) -> None:
    """Take an earlier fit's checkpoints and manifest out of the way of a new one, whose own they must not be taken for."""
    out = Path(out)
    if (out / FOLDER).is_dir():
        shutil.rmtree(out / PREVIOUS, ignore_errors=True)
        os.rename(out / FOLDER, out / PREVIOUS)
    if (out / "avatar.json").is_file():
        os.replace(out / "avatar.json", out / PREVIOUS_AVATAR)


def drop_previous(out: str | Path) -> None:
    """Remove what `set_aside` kept, once the new fit is saved."""
    shutil.rmtree(Path(out) / PREVIOUS, ignore_errors=True)
    (Path(out) / PREVIOUS_AVATAR).unlink(missing_ok=True)


def load_checkpoint(out: str | Path, config: FitConfig, capture: dict[str, str], device: torch.device | str = "cpu") -> FitState:
    """The newest checkpoint in `out`, to go on from on `device`, whichever one wrote it.

    Raises:
        MissingError: There is none.
        InputError: It is damaged, or was made with another configuration or capture; the message names the field.
    """
    path = Path(out) / FOLDER / "latest.json"
    if not path.is_file():
        raise MissingError(f"{Path(out) / FOLDER}: no checkpoint to resume from; start without resuming")
    pointer = _read_pointer(path)
    _same(path, "config", pointer["config"], to_json(config))
    _same(path, "capture", pointer["capture"], capture)
    try:
        file = inside(path.parent, pointer["file"])
    except (InputError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: 'file': {error}") from None
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: not readable ({error.strerror}), but {path} names it") from None
    if hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        raise InputError(f"{file}: does not match its SHA-256 in {path}; it is damaged")
    try:
        return _from_tensors(load_tensors(data), config, device)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{file}: not a checkpoint of this version ({error})") from None


def _to_tensors(state: FitState) -> dict[str, Tensor]:
    tensors = {f"tensor.{name}": x.detach() for name, x in state.tensors.items()}
    tensors |= {f"adam.{name}": x for name, x in state.adam.state().items()}
    tensors |= {f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in state.history.items()}
    tensors |= {"density.grad_sum": state.stats.grad_sum, "density.views": state.stats.views, "binding": state.binding}
    tensors |= {f"prior.{name}": x for name, x in state.prior.items()}
    tensors |= {"rng.torch": torch.get_rng_state(), "iteration": torch.tensor(state.iteration)}
    return {name: x.cpu().contiguous() for name, x in tensors.items()}


def _from_tensors(stored: dict[str, Tensor], config: FitConfig, device: torch.device | str) -> FitState:
    def group(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: x for name, x in stored.items() if name.startswith(prefix)}

    state = make_state({name: x.to(device) for name, x in group("tensor.").items()}, stored["binding"].to(device), config)
    state.adam.load_state(group("adam."))
    state.iteration = int(stored["iteration"])
    state.stats = DensityStats(*(stored[f"density.{name}"].to(device, copy=True) for name in ("grad_sum", "views")))
    state.history = {name: stored[f"history.{name}"].tolist() for name in HISTORY}
    state.prior = group("prior.")
    torch.set_rng_state(stored["rng.torch"])  # the fit draws nothing from it, but a prior may
    return state


def _read_pointer(path: Path) -> dict[str, Any]:
    pointer = read_json(path)
    if not isinstance(pointer, dict) or pointer.get("format") != _FORMAT or pointer.get("version") != _VERSION:
        raise InputError(f"{path}: not a checkpoint of this version of gafcore")
    for name, kind in {"iteration": int, "file": str, "sha256": str, "config": dict, "capture": dict}.items():
        if not isinstance(pointer.get(name), kind) or isinstance(pointer.get(name), bool):
            raise InputError(f"{path}: {name!r} must be {kind.__name__}, got {pointer.get(name)!r}")
    return pointer


def _same(path: Path, what: str, stored: dict[str, Any], given: dict[str, Any]) -> None:
    for name in sorted({*stored, *given}):
        if stored.get(name) != given.get(name):
            values = "" if what == "capture" else f" (checkpoint {stored.get(name)!r}, now {given.get(name)!r})"
            raise InputError(f"{path}: made with another {what}: {name!r} differs{values}; resume with the same, or start without resuming")


def _last_good(folder: Path) -> str:
    try:
        return f"the last good one is iteration {_read_pointer(folder / 'latest.json')['iteration']}"
    except InputError:
        return "there is no earlier one"
