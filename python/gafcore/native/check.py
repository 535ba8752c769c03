"""Checks at the edge of an op: every message says what was given and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)


def describe(x: object) -> str:
    """Shape, dtype and, where it is not the CPU, device: `(10, 4) float32`."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    device = "" if x.device.type == "cpu" else f" on {x.device}"
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}{device}"


def _expected(shape: Sequence[str | int], dtypes: Sequence[torch.dtype]) -> str:
    names = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
    return f"[{', '.join(map(str, shape))}] {names}"


def tensor(
    name: str,
    x: Tensor,
    shape: Sequence[str | int],
    sizes: dict[str, int] | None = None,
    *,
    like: Tensor | None = None,
    device: torch.device | None = None,
    dtypes: Sequence[torch.dtype] = FLOATS,
) -> dict[str, int]:
    """Check one tensor and collect the sizes of its named dimensions.

    Args:
        name: What the caller calls it.
        x: The tensor.
        shape: Numbers are required sizes; names are bound to what is found, or compared with `sizes` where already bound.
        sizes: Sizes bound so far; extended in place.
        like: Where given, dtype and device must equal this tensor's.
        device: Where given, the device must be this one; for tensors of another dtype than the others.
        dtypes: Allowed dtypes (ignored with `like`).

    Returns:
        `sizes`, with the names of `shape` added.

    Raises:
        TypeError: `x` is not a tensor.
        ValueError: Shape, dtype or device does not fit.
    """
    sizes = {} if sizes is None else sizes
    known = dict(sizes)
    if like is not None:
        dtypes, device = (like.dtype,), like.device
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor {_expected(shape, dtypes)}, got {describe(x)}")
    fits = x.dim() == len(shape) and x.dtype in dtypes
    if fits:
        for want, got in zip(shape, x.shape, strict=True):
            fits &= got == (sizes.setdefault(want, got) if isinstance(want, str) else want)
    if not fits:
        bound = ", ".join(f"{k} = {known[k]}" for k in shape if k in known)
        raise ValueError(f"{name} must be {_expected(shape, dtypes)}{f' with {bound}' if bound else ''}, got {describe(x)}")
    if device is not None and x.device != device:
        given = describe(x) if x.device.type != "cpu" else f"{describe(x)} on cpu"
        raise ValueError(f"{name} must be on {device} like the other tensors, got {given}; move it with .to()")
    if device is None and x.device.type not in ("cpu", "meta"):
        raise ValueError(f"{name} is on {x.device}; this build of gafcore has kernels for the CPU only, move it with .cpu()")
    return sizes


def index_range(name: str, x: Tensor, count: int, of: str) -> None:
    """Check that every number in `x` is a valid index into `count` things.

    Raises:
        ValueError: One is not; the message gives it.
    """
    if x.numel() == 0 or x.device.type == "meta":
        return
    low, high = (int(v) for v in torch.aminmax(x))
    if low < 0 or high >= count:
        raise ValueError(f"{name} must hold numbers of {of} from 0 to {count - 1}, got {low if low < 0 else high}")


def positive(name: str, value: float) -> None:
    """Raises ValueError unless `value` > 0."""
    if not value > 0:
        raise ValueError(f"{name} must be > 0, got {value}")


def integer(name: str, value: int) -> None:
    """Raises TypeError unless `value` is a whole number by type: 64, not 64.0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
