from __future__ import annotations

import pytest
import torch

from benchmarks import bench_bind_triangles, bench_interpolate, bench_linear_blend_skinning, bench_photometric_loss, devices
from gafcore.errors import InputError
from tests.cases.images import ImageCase


class Benchmark:
    """Stands for pytest-benchmark's fixture."""

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}
        self.calls = 0

    def __call__(self, call, *args):
        self.calls += 1
        return call(*args)

    def pedantic(self, call, args, rounds, warmup_rounds):
        for _ in range(warmup_rounds + rounds):
            result = self(call, *args)
        return result


@pytest.mark.parametrize(
    ("asked", "found", "expected"), [("auto", "cuda", ["cpu", "cuda"]), ("auto", "cpu", ["cpu"]), ("cpu", "cuda", ["cpu"])]
)
def test_auto_is_the_cpu_and_the_gpu_where_there_is_one(monkeypatch, asked, found, expected):
    monkeypatch.setenv(devices.VARIABLE, asked)
    monkeypatch.setattr(devices, "resolve", lambda name="auto": torch.device(found if name == "auto" else name))
    assert devices.chosen() == expected


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    monkeypatch.setattr("gafcore.devices.cuda_missing", lambda: "nothing is there")
    with pytest.raises(InputError, match="nothing is there"):
        devices.chosen()


def test_moved_keeps_what_wants_a_gradient_a_leaf():
    x = torch.ones(2, requires_grad=True)
    found = devices.moved({"a": (x * 1, [torch.arange(3)]), "b": 7, "c": (1, 2), "leaf": x}, "meta")
    assert found["leaf"].is_meta and found["leaf"].is_leaf and found["leaf"].requires_grad
    assert found["a"][1][0].dtype == torch.int64 and not found["a"][1][0].requires_grad
    assert found["b"] == 7 and found["c"] == (1, 2)


def test_a_call_on_the_cpu_is_timed_as_it_is():
    benchmark = Benchmark()
    assert devices.timed(benchmark, "cpu", sum, [1, 2], rounds=5, warmup_rounds=2) == 3
    assert benchmark.calls == 7 and benchmark.extra_info == {"device": "cpu"}
    assert devices.timed(benchmark, "cpu", sum, [1, 2]) == 3 and benchmark.calls == 8


def test_a_call_on_a_gpu_is_waited_for_and_timed_on_the_device(monkeypatch):
    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def elapsed_time(self, other: Event) -> float:
            return 0.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    benchmark = Benchmark()
    devices.timed(benchmark, "cuda", lambda: order.append("call"), rounds=1, warmup_rounds=0)
    assert order[:5] == ["call", "wait", "event", "call", "event"] and order[-1] == "wait"
    assert benchmark.extra_info == {"device": "cuda", "device_ms": 0.5}


@pytest.mark.parametrize("name", ["torch-11x11", "torch-separable"])
def test_peers_of_the_loss_go_where_the_images_are(name):
    image, target, _ = devices.moved(ImageCase("", (20, 24, 3)).inputs(torch.float32), "meta")
    assert all(x.is_meta for x in bench_photometric_loss.OPS[name](image, target))


@pytest.mark.parametrize(
    ("suite", "inputs"),
    [
        (bench_bind_triangles, lambda: bench_bind_triangles.inputs(10)),
        (bench_linear_blend_skinning, lambda: bench_linear_blend_skinning.inputs(2, 10)),
        (bench_interpolate, lambda: bench_interpolate.scene(3)),
    ],
)
def test_torch_peers_go_where_their_inputs_are(suite, inputs):
    (peer,) = (op for name, op in suite.OPS.items() if name != "gafcore")
    found = peer(*devices.moved(inputs(), "meta"))
    assert all(x.is_meta for x in (found if isinstance(found, tuple) else (found,)))
