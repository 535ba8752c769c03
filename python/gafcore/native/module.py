"""Calls into the compiled module. It reads the pointers of tensors, which must be contiguous and outlive the call."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
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

Field = Tensor | int | float | None
_CPU = {torch.float32: _native.cpu_float32, torch.float64: _native.cpu_float64}


def _launch_cpu(op: str, like: Tensor, fields: dict[str, Field]) -> Any:
    return getattr(_CPU[like.dtype], op)(torch.get_num_threads(), fields)


def _launch_cuda(op: str, like: Tensor, fields: dict[str, Field]) -> Any:
    if like.dtype != torch.float32:  # ops check before; a kernel would read doubles as floats
        raise ValueError(f"{op} on {like.device} is float32, got {str(like.dtype).removeprefix('torch.')}")
    device, scratch = like.device, []

    def allocate(n_bytes: int) -> int:
        scratch.append(torch.empty(n_bytes, dtype=torch.uint8, device=device))
        return scratch[-1].data_ptr()

    # The stream's address alone: `torch.cuda.current_stream` makes an object of it, which takes as long as the launch of a kernel.
    stream = torch._C._cuda_getCurrentRawStream(device.index)
    return call_cuda(_native.cuda_float32, op, device.index, stream, allocate, fields)


class _Asked(threading.local):
    n_bytes = 0


_asked = _Asked()


def scratch_bytes() -> int:
    """Bytes of scratch memory that this thread's last call of a CUDA op asked for, those it did not get included."""
    return _asked.n_bytes


def call_cuda(kernels: Any, op: str, device: int, stream: int, allocate: Callable[[int], int], fields: dict[str, Any]) -> Any:
    """Call `op` of the module `kernels`, which gets its scratch memory from `allocate(bytes)`.

    Raises:
        torch.OutOfMemoryError: `allocate` did; the message names the op and what it asked for.
    """

    def counted(n_bytes: int) -> int:
        _asked.n_bytes += n_bytes
        try:
            return allocate(n_bytes)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(f"{op} asked for {n_bytes:,} bytes of scratch memory: {error}") from error

    _asked.n_bytes = 0
    return getattr(kernels, op)(device, stream, counted, fields)


def adam_cuda(rows: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]], beta1: float, beta2: float, eps: float) -> None:
    """One Adam step in place over rows of (value, gradient, mean, square, step, rate), float32 and contiguous, on one GPU, at once."""
    device = rows[0][0].device
    stream = torch.cuda.current_stream(device)
    addresses = [(row[0].numel(), *(x.data_ptr() for x in row)) for row in rows]
    _native.cuda_float32.adam(device.index, stream.cuda_stream, _no_scratch, addresses, beta1, beta2, eps)


def _no_scratch(n_bytes: int) -> int:
    raise RuntimeError(f"a kernel that needs no scratch memory asked for {n_bytes} bytes")


# Who runs a kernel for tensors of a device. tests/simt puts the emulator in the CPU's place.
BACKENDS: dict[str, Callable[[str, Tensor, dict[str, Field]], Any]] = {"cpu": _launch_cpu, "cuda": _launch_cuda}


def launch(op: str, like: Tensor, **fields: Field) -> Any:
    """Run the native function `op` on the device and in the precision of `like`; on a GPU, put it on the current stream.

    `fields` are the members of the op's Args struct: tensors (contiguous, on the device of `like`), numbers, or None for a null pointer.
    Most functions return nothing; those whose output has no size known before return a buffer of bytes.
    """
    return launch_fields(op, like, fields)


def launch_fields(op: str, like: Tensor, fields: dict[str, Field]) -> Any:
    """`launch` with the fields in one dict. Where they are thirty, to hand them over as keywords takes as long as a small kernel."""
    return BACKENDS[like.device.type](op, like, fields)


def uses_cuda(like: Tensor) -> bool:
    """Whether `launch` runs csrc/cuda for tensors like this one: on a GPU, and in the emulator's tests."""
    return like.is_cuda or BACKENDS.get(like.device.type) is not _launch_cpu


def capturing(like: Tensor) -> bool:
    """Whether a CUDA graph is being captured on the current stream of this tensor's device: then nothing may be asked of the device."""
    device = like.device
    if device.type != "cuda":
        return False
    if device.index == torch.cuda.current_device():
        return torch.cuda.is_current_stream_capturing()
    with torch.cuda.device(device):  # torch asks for the current device's stream only
        return torch.cuda.is_current_stream_capturing()


def empty(*shape: int, like: Tensor) -> Tensor:
    """Uninitialised memory like `like.new_empty(shape)`, from the kernels' pool where large: fresh pages cost more than most kernels."""
    if like.is_cuda or (n_bytes := math.prod(shape) * like.element_size()) < 1 << 20 or uses_cuda(like):
        return like.new_empty(*shape)  # as a tuple it takes half as long again
    return torch.frombuffer(_native.Scratch(n_bytes), dtype=like.dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Uninitialised and contiguous memory like `x`, as `empty` gives it."""
    if x.is_cuda or x.nbytes < 1 << 20:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return empty(*x.shape, like=x)


def isa_name() -> str:
    """The instruction set that the vectorised kernels use on this processor."""
    return _native.isa_name()


def compiler() -> str:
    """The version of the C++ compiler that built the module."""
    return _native.compiler


def has_cuda() -> bool:
    """Whether CUDA kernels were compiled into the module."""
    return _native.has_cuda


def cuda_obstacle() -> str:
    """What stands in the way of running the module's CUDA kernels on this machine; empty where nothing does."""
    return _native.cuda_obstacle()


def cuda_version() -> str | None:
    """Version of the CUDA runtime inside the module, for example "13.0"; None without CUDA."""
    number = _native.cuda_runtime_version()
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def cuda_architectures() -> tuple[str, ...]:
    """What CUDA kernels were compiled for, in CMake's words: "90-real" is machine code of sm_90, "90-virtual" its PTX, "90" both."""
    return tuple(_native.cuda_architectures.split(",")) if has_cuda() else ()
