"""Which frames a fit reads, and how a resumed run knows that it meets the same capture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import Tensor

from gafcore.errors import InputError
from gafcore.types import Capture


def training_frames(capture: Capture, split: str) -> tuple[int, ...]:
    """Frame numbers of a split.

    Raises:
        InputError: The capture has no such split, it is empty, or it shares a frame with another one.
    """
    numbers = capture.splits.get(split)
    if not numbers:
        raise InputError(f"the capture has no frames in split {split!r}; it has {sorted(k for k, v in capture.splits.items() if v)}")
    for name, others in capture.splits.items():
        if name != split and (shared := set(numbers) & set(others)):
            raise InputError(f"frame {min(shared)} is in the splits {split!r} and {name!r}: fitting and testing must not share frames")
    return tuple(numbers)


def fingerprint(capture: Capture, numbers: tuple[int, ...]) -> dict[str, str]:
    """What a resumed run compares: one hash a field, over everything but the pixels."""
    frames = [capture.frames[i] for i in numbers]
    params = [x for _, x in sorted(capture.params.items()) if x is not None]
    return {
        "frames": _hash_json([(f.timestep, f.camera_index, f.camera.width, f.camera.height) for f in frames]),
        "split": _hash_json(list(numbers)),
        "cameras": _hash_tensors(x for f in frames for x in (f.camera.viewmat, f.camera.K)),
        "rig": _hash_tensors((capture.rig.template, capture.rig.faces)),
        "rig parameters": _hash_tensors(params),
        "background": _hash_json(list(capture.background)),
    }


def _hash_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _hash_tensors(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(str((tuple(x.shape), x.dtype)).encode())
        digest.update(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return digest.hexdigest()
