"""Calls into the compiled module. Tensors go as pointers, so they must be contiguous and outlive the call."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

try:
    from gafcore.native import _native  # type: ignore[attr-defined]
except ImportError as error:
    raise ImportError(
        f"gafcore's compiled kernels cannot be loaded ({error}). Install the package with `pip install .`; "
        "in a source tree run `make develop` and set PYTHONPATH=python."
    ) from error

_CPU = {torch.float32: _native.cpu_float32, torch.float64: _native.cpu_float64}


def launch(op: str, like: Tensor, **fields: Tensor | int | float | None) -> Any:
    """Run the native function `op` on the device and in the precision of `like`.

    `fields` are the members of the op's Args struct: tensors (contiguous, on the device of `like`), numbers, or None for a null pointer.
    Most functions return nothing; those whose output has no size known before return a buffer of bytes.
    """
    values = {k: v.data_ptr() if isinstance(v, Tensor) else v for k, v in fields.items()}
    return getattr(_CPU[like.dtype], op)(torch.get_num_threads(), **values)


def empty(*shape: int, like: Tensor) -> Tensor:
    """Uninitialised memory like `like.new_empty(shape)`, from the kernels' pool where large: fresh pages cost more than most kernels."""
    n_bytes = math.prod(shape) * like.element_size()
    if n_bytes < 1 << 20 or like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.frombuffer(_native.Scratch(n_bytes), dtype=like.dtype).view(shape)


def isa_name() -> str:
    """The instruction set that the vectorised kernels use on this processor."""
    return _native.isa_name()


def compiler() -> str:
    """The version of the C++ compiler that built the module."""
    return _native.compiler


def has_cuda() -> bool:
    """Whether CUDA kernels were compiled into the module."""
    return _native.has_cuda
