"""Other kernels in the place of the CPU's, so that suites written for CPU tensors run on them unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from gafcore.native import cuda_obstacle, has_cuda
from gafcore.native import module as native


def gpu_obstacle() -> str:
    """Why CUDA kernels cannot run here, or "" where they can."""
    if not has_cuda():
        return "gafcore was built without CUDA"
    if obstacle := cuda_obstacle():
        return obstacle
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} has no CUDA"


def _launch_on_gpu(op: str, like: Tensor, fields: dict[str, Any]) -> Any:
    """Copies to the GPU, runs there, copies back. Doubles stay on the CPU: a GPU has kernels for float32."""
    if like.dtype != torch.float32:
        return native._launch_cpu(op, like, fields)
    copies = {id(v): (v, v.cuda()) for v in fields.values() if isinstance(v, Tensor)}
    on_gpu = {k: copies[id(v)][1] if isinstance(v, Tensor) else v for k, v in fields.items()}
    result = native._launch_cuda(op, torch.empty(0, device="cuda"), on_gpu)
    for here, there in copies.values():
        here.data.copy_(there)  # .data: autograd's version of inputs stays, for nothing has changed them
    return result


@contextmanager
def on_gpu() -> Iterator[None]:
    before = native.BACKENDS["cpu"]
    native.BACKENDS["cpu"] = _launch_on_gpu
    try:
        yield
    finally:
        native.BACKENDS["cpu"] = before


@contextmanager
def chosen(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels that a test of tests/ops runs on: the CPU's; with `-m gpu` the GPU's; with GAFCORE_KERNELS=simt the emulator's."""
    if request.node.get_closest_marker("gpu"):
        if obstacle := gpu_obstacle():
            pytest.skip(f"no GPU to run on: {obstacle}")
        with on_gpu():
            yield
    elif os.environ.get("GAFCORE_KERNELS") == "simt":
        from tests.simt.emulator import emulated

        with emulated("random"):
            yield
    else:
        yield
