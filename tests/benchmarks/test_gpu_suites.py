from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import measure, ops, rasterizer, suites
from gafcore import photometric_loss, rasterization


def all_rows(suite: str) -> list[measure.Row]:
    return [r for group in suites.SUITES[suite]() for r in suites.guarded(group)]


@pytest.mark.parametrize(("suite", "count"), [("ops", 140), ("rasterize", 505), ("scale", 52)])
def test_every_row_runs(on_cpu, suite, count):
    rows = all_rows(suite)
    assert [r for r in rows if "error" in r] == []
    assert len(rows) == count
    assert all(r["median_ms"] == 2.0 and r["peak_mb"] == 1.5 for r in rows)
    assert str(count) in suites.__doc__


def test_every_op_has_a_row(on_cpu):
    names = {r["name"].removesuffix(", replayed").removesuffix(" forward+backward") for r in all_rows("ops")}
    own = {
        "bind_triangles",
        "linear_blend_skinning",
        "photometric_loss",
        "rasterize_mesh",
        "rasterize_mesh + interpolate",
        "interpolate",
        "adam",
    }
    assert names == own | {"peer torch.optim.Adam fused"}


def test_half_precision_says_how_far_off_it_is(on_cpu):
    rows = rasterizer.kind_rows("256x256", 3, 40, 2)
    half = [r for r in rows if "half-precision" in r["name"]]
    assert [r["name"] for r in half] == [f"rasterization forward, half-precision harmonics{s}" for s in ("", ", replayed")]
    assert all(0 < r["largest_image_error"] < 1 / 255 for r in half)


def test_peers_have_rows_and_their_errors_too(on_cpu, monkeypatch):
    def fussy(*args, packed, **kwargs):
        if packed and "backgrounds" not in kwargs:
            raise AssertionError
        return rasterization(*args, **kwargs)

    found = {
        "gsplat": SimpleNamespace(rasterization=fussy),
        "fused_ssim": SimpleNamespace(fused_ssim=lambda a, b: photometric_loss(*(z.permute(0, 2, 3, 1).contiguous() for z in (a, b)))[1]),
    }
    monkeypatch.setattr(rasterizer, "peer", found.get)
    monkeypatch.setattr(ops, "peer", found.get)
    rows = rasterizer.kind_rows("256x256", 0, 10, 1)
    assert len(rows) == 6 + 4
    errors = [r["error"] for r in rows if r["name"].startswith("peer gsplat packed")]
    assert errors == ["AssertionError"] * 2
    assert all("error" not in r for r in rows if r["name"].startswith("peer gsplat dense"))
    assert [r.get("error") for r in ops.fused_ssim_rows()] == [None] * 18


def test_a_group_that_lacks_a_library_is_a_row(on_cpu):
    def animation_rows() -> list[measure.Row]:
        raise ModuleNotFoundError("No module named 'plyfile'", name="plyfile")

    assert suites.guarded(animation_rows) == [{"name": "animation_rows", "error": "ImportError: needs plyfile"}]


@pytest.mark.parametrize(
    ("error", "line"),
    [(AssertionError(), "AssertionError"), (KeyError("a\nb"), r"KeyError: 'a\nb'"), (ValueError("x\ny"), "ValueError: x")],
)
def test_a_row_survives_whatever_its_call_raises(on_cpu, error, line):
    def call() -> None:
        raise error

    assert measure.row("a", call, size=3) == {"name": "a", "size": 3, "error": line}
    assert measure.replayed_row("a", call) == {"name": "a, replayed", "error": line}


def test_a_graph_counts_what_it_allocates_while_it_is_captured(on_cpu, monkeypatch):
    held = {"now": 100, "peak": 100}

    class Held(measure.Memory):
        def __init__(self) -> None:
            self.before = held["now"]

        def peak_mb(self) -> float:
            return (held["peak"] - self.before) / 2**20

    monkeypatch.setattr(measure, "Memory", Held)

    def capture(call):
        held["now"] += 7 * 2**20
        held["peak"] = held["now"]
        return call

    monkeypatch.setattr(measure, "replayed", capture)
    assert measure.replayed_row("a", lambda: None)["peak_mb"] == 7.0


def test_a_capture_that_fails_does_not_spoil_the_next(monkeypatch):
    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    @contextmanager
    def capture(graph, pool):
        torch.cuda.set_stream("the capture's")
        yield
        torch.cuda.set_stream("the caller's")

    streams, ended = [], []
    caller = Stream()
    for name, value in {
        "Stream": Stream,
        "current_stream": lambda: caller,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay="replay"),
        "graph_pool_handle": lambda: (0, 7),
        "graph": capture,
        "set_stream": streams.append,
        "current_device": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *a: ended.append(a), raising=False)
    assert measure.replayed(lambda: None) == "replay" and streams == ["the capture's", "the caller's"] and not ended
    calls = iter([None, None, None, RuntimeError("not permitted")])

    def call() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(RuntimeError, match="not permitted"):
        measure.replayed(call)
    assert streams[-1] is caller and ended == [(1, (0, 7))]


def test_backward_leaves_no_gradients_behind():
    x = torch.ones(3, requires_grad=True)
    measure.backward(lambda: (x * x).sum(), [x])()
    assert x.grad is None
