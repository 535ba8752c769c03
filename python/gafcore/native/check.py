"""Checks at the edge of an op: every message says what was given and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gafcore.native.module import capturing, has_cuda

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
    if like is not None:
        dtypes, device = (like.dtype,), like.device
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor {_expected(shape, dtypes)}, got {describe(x)}")
    size = x.shape
    fits = len(size) == len(shape) and x.dtype in dtypes
    found: dict[str, int] = {}
    if fits:
        for want, got in zip(shape, size):  # noqa: B905 - of equal lengths
            if isinstance(want, str):
                if want in sizes:
                    fits &= sizes[want] == got
                else:
                    fits &= found.setdefault(want, got) == got
            else:
                fits &= want == got
    if not fits:
        bound = ", ".join(f"{k} = {sizes[k]}" for k in shape if k in sizes)
        raise ValueError(f"{name} must be {_expected(shape, dtypes)}{f' with {bound}' if bound else ''}, got {describe(x)}")
    sizes.update(found)
    if device is not None and x.device != device:
        given = describe(x) if x.device.type != "cpu" else f"{describe(x)} on cpu"
        raise ValueError(f"{name} must be on {device} like the other tensors, got {given}; move it with .to()")
    if device is None:
        _device(name, x)
    return sizes


def _device(name: str, x: Tensor) -> None:
    """Raises ValueError where no kernel runs on `x`: another kind of device, a build without CUDA, or doubles on a GPU."""
    if x.device.type in ("cpu", "meta"):
        return
    if x.device.type != "cuda":
        raise ValueError(f"{name} is on {x.device}; gafcore has kernels for the CPU and for CUDA, move it with .cpu()")
    if not has_cuda():
        raise ValueError(f"{name} is on {x.device}; this build of gafcore has none for CUDA (see `gafcore doctor`), move it with .cpu()")
    if x.dtype == torch.float64:
        raise ValueError(f"{name} is float64 on {x.device}; on a GPU kernels are float32, use .float(), or .cpu() for doubles")


# Index tensors on a GPU that were found in range: (version, lowest allowed, count). Reading a range waits for the GPU, so it is done once
# for a tensor, not once a frame. A tensor made in inference mode has no version by which a change could be noticed: nothing is remembered.
_in_range: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def trust(x: Tensor, low: int, count: int) -> None:
    """Say that the numbers in `x`, as it is now, are from `low` to `count` - 1: they come from a kernel of ours."""
    if _on_gpu(x) and not x.is_inference():
        _in_range[x] = (x._version, low, count)


def _on_gpu(x: Tensor) -> bool:
    return x.device.type == "cuda"


def _known(x: Tensor, low: int, count: int) -> bool:
    """Whether the numbers in `x` are known to be from `low` to `count` - 1."""
    found = None if x.is_inference() else _in_range.get(x)
    return found is not None and found[0] == x._version and found[1] >= low and found[2] <= count


def _range(x: Tensor, low: int, count: int) -> tuple[int, int] | None:
    """Lowest and highest number, or None where they are known to be from `low` to `count` - 1, or there are none."""
    if x.numel() == 0 or x.device.type == "meta":
        return None
    if not _on_gpu(x):
        least, greatest = torch.aminmax(x)
        return int(least), int(greatest)
    if _known(x, low, count) or capturing(x):  # nothing can be read during a capture; the run before it has checked
        return None
    least, greatest = torch.stack(torch.aminmax(x)).tolist()
    if least >= low and greatest < count:
        trust(x, low, count)
    return least, greatest


def index_range(name: str, x: Tensor, count: int, of: str, *, none: int | None = None) -> None:
    """Check that every number in `x` is a valid index into `count` things, or `none` (which is below 0) for none.

    On a GPU a tensor is read once, and again after it has changed: reading waits for the GPU. One made in inference mode is read every
    time, since a change of it leaves no trace: index tensors that serve many calls are better made outside of the mode.

    Raises:
        ValueError: One is not; the message gives it.
    """
    lowest = 0 if none is None else none
    found = _range(x, lowest, count)
    if found is None or (found[0] >= lowest and found[1] < count):
        return
    wrong = found[0] if found[0] < lowest else found[1]
    or_none = "" if none is None else f"{none} or "
    raise ValueError(f"{name} must hold {or_none}numbers of {of} from 0 to {count - 1}, got {wrong}")


def positive(name: str, value: float) -> None:
    """Raises ValueError unless `value` > 0."""
    if not value > 0:
        raise ValueError(f"{name} must be > 0, got {value}")


def integer(name: str, value: int) -> None:
    """Raises TypeError unless `value` is a whole number by type: 64, not 64.0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
