"""The suites for a GPU, made to run on the CPU with small inputs: every line of theirs, no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.gpu import animation, measure, ops, rasterizer, steps
from gafcore.render import CompiledRenderer


class NoMemory:
    def peak_mb(self) -> float:
        return 1.5


def once(call: Callable[[], object]) -> list[float]:
    call()
    return [1.0, 2.0, 3.0]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "times_ms", once)
    monkeypatch.setattr(measure, "Memory", NoMemory)
    monkeypatch.setattr(measure, "replayed", lambda call: call)
    monkeypatch.setattr(animation, "Memory", NoMemory)
    monkeypatch.setattr(animation, "frames_a_second", lambda draw, n: (draw(0), 100.0, 1.0)[1:])
    # A graph needs a GPU; what it holds is drawn all the same.
    monkeypatch.setattr(animation, "CompiledRenderer", lambda *a, graph, half=False: CompiledRenderer(*a, graph=False, half=half))
    monkeypatch.setattr(animation, "SIZES", {"a": (24, 16), "b": (16, 24), "c": (24, 24)})
    monkeypatch.setattr(animation, "MOMENTS", 8)
    monkeypatch.setattr(animation, "N_GAUSSIANS", (100, 200, 300, 400))
    monkeypatch.setattr(ops, "SIZES", {"a": (24, 16), "b": (16, 24), "c": (24, 24)})
    monkeypatch.setattr(ops, "N_FACES", 20)
    monkeypatch.setattr(ops, "MESH_SIZES", (16, 24))
    monkeypatch.setattr(ops, "MESH_CAMERAS", (1, 2))
    monkeypatch.setattr(ops, "SKINNED", ((1, 50), (1, 60), (2, 50), (3, 50)))
    monkeypatch.setattr(steps, "SIZE", "256x256")
    monkeypatch.setattr(steps, "N_FACES", 20)
    monkeypatch.setattr(rasterizer, "SIZES", ("256x256",) * 3)
    for module in (ops, rasterizer, steps):
        monkeypatch.setattr(module, "COUNTS", (10, 20, 30, 40))
    for module in (animation, ops, rasterizer, steps):
        monkeypatch.setattr(module, "DEVICE", "cpu")
