"""csrc/cuda/no_cuda.cpp, compiled where there is no nvcc: the bindings find in it all that they call, and it says what is missing."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch

from gafcore import bind_triangles
from gafcore.native import module as native
from tests.cases.bindings import binding_cases
from tests.simt.emulator import KIND, load, module_path

pytestmark = pytest.mark.skipif(KIND != "plain", reason="compiled once, without sanitizers: there is nothing to run")


@pytest.fixture(scope="module")
def no_cuda() -> ModuleType:
    """The emulator's module with no_cuda.cpp in the place of the kernels. Python resolves every symbol when it loads one."""
    load()  # or skips the test where nothing was built
    path = module_path("no_cuda")
    assert path is not None, "the target `simt` was built before it had this module: build it again"
    spec = importlib.util.spec_from_file_location("no_cuda._simt", path)  # pybind11 keeps modules by their name
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_function_of_the_bindings_is_there(no_cuda):
    assert no_cuda.__file__ != load().__file__
    assert dir(no_cuda.cuda_float32) == dir(load().cuda_float32)


def test_a_call_says_what_to_do(no_cuda, monkeypatch):
    def launch(op, like, fields):
        given = {k: (v.data_ptr() if v.numel() else None) if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
        return getattr(no_cuda.cuda_float32, op)(0, 0, lambda n: 0, given)

    monkeypatch.setitem(native.BACKENDS, "cpu", launch)
    with pytest.raises(RuntimeError, match="gafcore was built without CUDA; `gafcore doctor` says how to get it"):
        bind_triangles(*binding_cases()[0].inputs(torch.float32))
