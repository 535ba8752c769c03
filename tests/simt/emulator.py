"""Runs CUDA ops in the emulator: in its place in `gafcore.native`, CPU tensors go to csrc/cuda."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from gafcore.native import module as native

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("GAFCORE_SIMT_BUILD", ROOT / "build" / "simt"))
KIND = os.environ.get("GAFCORE_SIMT", "plain")  # or asan, tsan
ORDERS = ("fifo", "lifo", "random")


def module_path(kind: str = KIND) -> Path | None:
    """The compiled emulator of a kind, by default the one that GAFCORE_SIMT names, or None where it was not built."""
    found = sorted((BUILD / "tests" / "simt" / kind).glob("_simt.*.so"))
    return found[0] if found else None


def load() -> ModuleType:
    """The emulator's module; skips the test, with a reason, where it was not built (`.ci/run` builds it and insists)."""
    if "_simt" in sys.modules:
        return sys.modules["_simt"]
    path = module_path()
    if path is None:
        message = f"the emulator is not built in {BUILD}: cmake with -DGAF_SIMT=ON -B build/simt, see tests/simt/README.md"
        if "GAFCORE_SIMT" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    spec = importlib.util.spec_from_file_location("_simt", path)
    assert spec is not None and spec.loader is not None
    sys.modules["_simt"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Device:
    """Device memory for the time of one call: copies of the tensors, each between guard pages, and scratch."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.copies: dict[int, tuple[Tensor, int]] = {}  # by address on the host
        self.scratch: list[int] = []

    def pointer(self, x: Tensor) -> int:
        assert x.is_contiguous() and x.device.type == "cpu"
        if x.data_ptr() not in self.copies:
            p = self.module.allocate(x.numel() * x.element_size())
            self.module.write(p, x.data_ptr(), x.numel() * x.element_size())
            self.copies[x.data_ptr()] = x, p
        return self.copies[x.data_ptr()][1]

    def allocate(self, n_bytes: int) -> int:
        # The host's lazy memory grants a size gone wrong, which a GPU refuses: 128 GiB for an empty image once.
        assert 0 <= n_bytes < 1 << 30, f"a kernel asks for {n_bytes} bytes of scratch memory"
        self.scratch.append(self.module.allocate(n_bytes))
        return self.scratch[-1]

    def read_back(self) -> None:
        for x, p in self.copies.values():
            self.module.read(x.data_ptr(), p, x.numel() * x.element_size())

    def release(self) -> None:
        for p in [*(p for _, p in self.copies.values()), *self.scratch]:
            self.module.release(p)


def launch(op: str, like: Tensor, fields: dict[str, Any]) -> Any:
    if like.dtype != torch.float32:  # the oracle's precision in the op suites: a GPU has kernels for float32
        return native._launch_cpu(op, like, fields)
    module = load()
    device = Device(module)
    try:
        values = {
            k: device.pointer(v) if isinstance(v, Tensor) and v.numel() else None if isinstance(v, Tensor) else v for k, v in fields.items()
        }
        result = native.call_cuda(module.cuda_float32, op, 0, 0, device.allocate, values)
        device.read_back()
        return result
    finally:
        device.release()


@contextmanager
def emulated(order: str = "fifo", seed: int = 0, timeout_s: float = 60.0) -> Iterator[ModuleType]:
    """Within it, ops on CPU tensors run csrc/cuda; memory that torch leaves uninitialised is NaN, or the largest integer."""
    module = load()
    module.configure(order, seed, timeout_s)
    before = native.BACKENDS["cpu"], torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    native.BACKENDS["cpu"] = launch
    torch._C._set_deterministic_algorithms(True)  # the public function imports a compiler first
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield module
    finally:
        native.BACKENDS["cpu"], deterministic, torch.utils.deterministic.fill_uninitialized_memory = before
        torch._C._set_deterministic_algorithms(deterministic)
