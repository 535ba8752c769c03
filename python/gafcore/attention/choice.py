"""Which implementation a shape gets: a table where someone measured, a rule where nobody did."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import torch

Backend = Literal["sdpa", "triton"]
BACKENDS: tuple[Backend, ...] = ("sdpa", "triton")
VARIABLE = "GAFCORE_ATTENTION"
_TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_TRITON_HEAD_DIMS = (16, 128)
_override: Backend | None = None


@dataclass(frozen=True)
class Shape:
    """What the choice depends on."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    n_queries: int
    n_keys: int
    n_ref: int
    gradients: bool


@dataclass(frozen=True)
class Choice:
    backend: Backend
    reason: str


@cache
def table() -> dict[str, Any]:
    """The measured table, `choices.json` beside this file: which GPU, when, and rows of shapes. `rows` is empty until somebody measures."""
    return json.loads(resources.files("gafcore.attention").joinpath("choices.json").read_text(encoding="utf-8"))


def override() -> Backend | None:
    """What `use_backend` set."""
    return _override


def use_backend(backend: Backend | None) -> None:
    """Use one backend for every shape; None goes back to the environment variable GAFCORE_ATTENTION, or else the table and the rule.

    Raises:
        ValueError: There is no such backend.
    """
    global _override
    _override = None if backend is None else _known("backend", backend)


@contextmanager
def backend_within(backend: Backend) -> Iterator[None]:
    """`use_backend` for a block of code, whatever was set before."""
    global _override
    before, _override = _override, _known("backend", backend)
    try:
        yield
    finally:
        _override = before


def _known(name: str, value: str) -> Backend:
    if value not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(BACKENDS)}, got {value!r}")
    return value


def choose(shape: Shape) -> Choice:
    """The backend for a shape, in order: override, environment, what Triton cannot do, the table's nearest row, the rule.

    The rule for what nobody measured is SDPA: it is the path whose speed is known.
    """
    if _override is not None:
        return Choice(_override, "use_backend")
    if os.environ.get(VARIABLE):
        return Choice(_known(VARIABLE, os.environ[VARIABLE]), f"environment variable {VARIABLE}")
    if shape.device.type != "cuda":
        return Choice("sdpa", f"Triton's kernels run on CUDA devices, not on {shape.device.type}")
    low, high = _TRITON_HEAD_DIMS
    if shape.dtype not in _TRITON_DTYPES or not low <= shape.head_dim <= high:
        return Choice("sdpa", f"outside the Triton kernels' range: {shape.dtype}, {shape.head_dim} channels a head")
    row = _measured_row(shape)
    if row is None:
        return Choice("sdpa", "not measured")
    return Choice(_known("choices.json: backend", row["backend"]), f"measured on {table()['measured']['device']}")


def _measured_row(shape: Shape) -> dict[str, Any] | None:
    """The row of the same dtype, head size, kind of pass and reference, nearest in query and key counts, at most a factor of two away."""
    name = str(shape.dtype).removeprefix("torch.")
    same = [
        row
        for row in table()["rows"]
        if (row["dtype"], row["head_dim"], row["gradients"], row["n_ref"] > 0) == (name, shape.head_dim, shape.gradients, shape.n_ref > 0)
    ]

    def distance(row: dict[str, Any]) -> float:
        pairs = ((row["n_queries"], shape.n_queries), (row["n_keys"] + row["n_ref"], shape.n_keys + shape.n_ref))
        return max(max(a / b, b / a) for a, b in pairs)

    near = [row for row in same if distance(row) <= 2]
    return min(near, key=distance, default=None)
