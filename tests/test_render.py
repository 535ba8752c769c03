"""CompiledRenderer: equal pictures from the plain path and from a repeated call, growth of the room for pairs, what is kept and freed."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from gafcore import render as render_module
from gafcore.avatars import init_avatar, render
from gafcore.cameras import from_angles
from gafcore.ops import pair_room
from gafcore.render import CompiledRenderer, capture_graph
from tests.cases.ball import ball_params, ball_rig
from tests.kernels import gpu_obstacle

WIDTH, HEIGHT = 40, 34


def on_a_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")(test))


def avatar_of_ball():
    rig = ball_rig()
    params = replace(ball_params(rig), static_offset=0.002 * torch.randn(rig.template.shape, generator=torch.Generator().manual_seed(1)))
    colors = torch.rand(128, 3, generator=torch.Generator().manual_seed(0))
    return init_avatar(rig, params, colors, opacity=0.7, sh_degree=1)


def cameras(*angles: float):
    return [from_angles(a, 0.1, 1.0, focal_px=130.0, width=WIDTH, height=HEIGHT) for a in angles]


class Recorder:
    """In a graph's place: the call's results stay in the memory of the first, and `captures` counts how often it was made."""

    def __init__(self):
        self.captures = 0

    def __call__(self, fn):
        self.captures += 1
        out = fn()

        def replay():
            new = fn()
            out.image.copy_(new.image)
            out.alpha.copy_(new.alpha)

        return out, replay


@pytest.mark.parametrize("capture", [None, Recorder()], ids=["plain", "repeated"])
@pytest.mark.parametrize("poses", [1, 2])
def test_pictures_equal_those_of_the_avatar(capture, poses):
    avatar, background = avatar_of_ball(), torch.tensor([0.1, 0.2, 0.3])
    options = {} if capture is None else dict(graph=True, capture=capture)
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, n_views=2, n_poses=poses, background=background, **options)
    for step in range(3):
        views, params = cameras(0.3 * step, 0.5 - step), avatar.params[[step, 3 - step][:poses]]
        got = renderer(views, params)
        want = render(avatar, views, params, background)
        torch.testing.assert_close(got.image, want.image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got.alpha, want.alpha, rtol=1e-4, atol=1e-4)
        assert want.alpha.max() > 0.5


def test_a_repeated_call_writes_to_the_same_memory_and_is_made_once():
    avatar, capture = avatar_of_ball(), Recorder()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture)
    first = renderer(cameras(0.0), avatar.params[0])
    before = first.image.clone()
    second = renderer(cameras(1.0), avatar.params[1])
    assert second.image.data_ptr() == first.image.data_ptr()
    assert not torch.equal(first.image, before)
    assert capture.captures == 1


def test_it_is_made_again_when_the_room_for_pairs_has_grown(monkeypatch):
    pair_room.forget()
    monkeypatch.setattr(pair_room, "STEP", 64)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 1)
    avatar, capture = avatar_of_ball(), Recorder()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture)
    n_pairs = int(renderer(cameras(0.0), avatar.params[0]).meta["n_pairs"])
    room = pair_room.room_of(avatar.means, 1, len(avatar), WIDTH, HEIGHT)
    room.capacity = renderer._capacity = n_pairs - 1
    renderer(cameras(0.1), avatar.params[1])
    assert capture.captures == 2
    assert room.capacity >= 1.3 * n_pairs
    renderer(cameras(0.2), avatar.params[1])
    assert capture.captures == 2
    room.short, renderer._capacity = True, n_pairs - 1  # there was no memory for more
    renderer(cameras(0.3), avatar.params[1])
    assert capture.captures == 2
    pair_room.forget()


def test_the_avatar_keeps_no_gradient():
    avatar = avatar_of_ball()
    image = CompiledRenderer(avatar, WIDTH, HEIGHT)(cameras(0.0), avatar.params[0]).image
    assert not image.requires_grad


def test_half_precision_is_not_seen():
    avatar = avatar_of_ball()
    view, params = cameras(0.4), avatar.params[2]
    whole, half = (CompiledRenderer(avatar, WIDTH, HEIGHT, half=h)(view, params).image for h in (False, True))
    assert 0 < (whole - half).abs().max() < 1 / 255


def test_wrong_numbers_are_named():
    avatar = avatar_of_ball()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"expected 1 camera\(s\) of 40x34, got 40x34, 40x34"):
        renderer(cameras(0.0, 1.0), avatar.params[0])
    with pytest.raises(ValueError, match=r"expected 1 camera\(s\) of 40x34, got 8x8"):
        renderer([from_angles(0, 0, 1, focal_px=9, width=8, height=8)], avatar.params[0])
    with pytest.raises(ValueError, match=r"expected 1 pose\(s\), got 2"):
        renderer(cameras(0.0), avatar.params[:2])
    with pytest.raises(ValueError, match=r"n_poses must be 1 or n_views \(1\), got 3"):
        CompiledRenderer(avatar, WIDTH, HEIGHT, n_poses=3)
    with pytest.raises(ValueError, match="a CUDA graph needs an avatar on a GPU, got one on cpu"):
        CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True)


def failing(error):
    def capture(fn):
        capture.calls += 1
        raise error

    capture.calls = 0
    return capture


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operation not permitted when stream is capturing\nmore"), torch.OutOfMemoryError("CUDA out of memory")],
    ids=["not-permitted", "memory"],
)
def test_what_cannot_be_captured_is_drawn_kernel_by_kernel(error):
    avatar, capture = avatar_of_ball(), failing(error)
    renderer, plain = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture), CompiledRenderer(avatar, WIDTH, HEIGHT)
    with pytest.warns(RuntimeWarning) as warned:
        for step in range(3):
            views, params = cameras(0.3 * step), avatar.params[step]
            assert torch.equal(renderer(views, params).image, plain(views, params).image)
    reason = str(error).splitlines()[0]
    assert [str(w.message) for w in warned] == [
        f"pictures of an avatar could not be captured as a CUDA graph ({reason}); they are drawn kernel by kernel"
    ]
    assert warned[0].filename == __file__ and capture.calls == 1
    assert renderer.report() == dict(captured=False, graph_bytes=0, capacity=0, n_pairs=plain.report()["n_pairs"], obstacle=reason)


def test_other_errors_are_raised():
    avatar = avatar_of_ball()
    with pytest.raises(ValueError, match="a mistake"):
        CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=failing(ValueError("a mistake")))(cameras(0.0), avatar.params[0])


def test_closing_drops_the_graph_and_another_call_captures_anew():
    avatar, capture = avatar_of_ball(), Recorder()
    with CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture) as renderer:
        assert renderer.report()["captured"] is False
        held = renderer(cameras(0.0), avatar.params[0]).image
        gone = weakref.ref(renderer(cameras(0.0), avatar.params[0]).alpha)
        room = pair_room.room_of(avatar.means, 1, len(avatar), WIDTH, HEIGHT)
        report = renderer.report()
        assert report["captured"] and report["capacity"] == room.capacity and report["n_pairs"] > 0 and report["obstacle"] == ""
        before = held.clone()
    assert gone() is None and torch.equal(held, before)
    assert renderer.report()["captured"] is False
    renderer.close()
    torch.testing.assert_close(renderer(cameras(0.0), avatar.params[0]).image, before)
    assert capture.captures == 2


def test_an_old_graph_is_gone_before_the_next_is_captured(monkeypatch):
    avatar, capture, alive = avatar_of_ball(), Recorder(), []

    def watched(fn):
        alive.append(renderer._out is not None or renderer._replay is not None)
        return capture(fn)

    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=watched)
    renderer(cameras(0.0), avatar.params[0])
    monkeypatch.setattr(renderer, "_outgrown", lambda: True)
    renderer(cameras(0.0), avatar.params[0])
    assert alive == [False, False]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("made_in_it", [True, False])
def test_inference_mode_makes_no_difference(graph, made_in_it):
    avatar = avatar_of_ball()
    options = dict(graph=True, capture=Recorder()) if graph else {}
    with torch.inference_mode(made_in_it):
        renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, **options)
    views, params = cameras(0.2), avatar.params[1]
    pictures = []
    for mode in (made_in_it, not made_in_it, made_in_it):
        with torch.inference_mode(mode):
            pictures.append(renderer(views, params).image.clone())
    assert all(torch.equal(pictures[0], x) for x in pictures[1:])
    assert not renderer(views, params).image.is_inference()


def test_a_capture_that_fails_leaves_nothing_behind(monkeypatch):
    """The steps of a capture, without a GPU."""
    steps = []

    class Stream:
        def wait_stream(self, other):
            steps.append("wait")

    class Graph:
        def capture_begin(self, capture_error_mode):
            steps.append("begin")

        def capture_end(self):
            steps.append("end")
            raise RuntimeError("capture invalidated")

    @contextmanager
    def stream(_):
        steps.append("enter")
        try:
            yield
        finally:
            steps.append("leave")

    monkeypatch.setattr(render_module, "_capture_stream", lambda device: Stream())
    for name, fake in dict(
        current_device=lambda: 0, CUDAGraph=Graph, stream=stream, current_stream=Stream, synchronize=lambda: None, empty_cache=lambda: None
    ).items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def draw():
        steps.append("draw")
        if "begin" in steps:
            assert not gc.isenabled()
            raise RuntimeError("what went wrong")

    with pytest.raises(RuntimeError, match="what went wrong"):
        capture_graph(draw)
    assert gc.isenabled()
    assert steps == ["wait", "enter", "draw", "draw", "begin", "draw", "end", "leave"]


def on_gpu(avatar, device="cuda"):
    return replace(
        avatar, rig=avatar.rig.to(device), params=avatar.params.to(device), binding=avatar.binding.to(device),
        **{k: v.to(device) for k, v in avatar.parameters().items()},
    )  # fmt: skip


@on_a_gpu
def test_a_graph_gives_the_bits_of_the_plain_path():
    avatar = avatar_of_ball()
    moved = on_gpu(avatar)
    with_graph, plain = (CompiledRenderer(moved, WIDTH, HEIGHT, graph=graph) for graph in (True, False))
    for step in range(4):
        views, params = cameras(0.3 * step), avatar.params[step]
        assert torch.equal(with_graph(views, params).image, plain(views, params).image)
    assert with_graph.report()["captured"]


@on_a_gpu
def test_a_graphs_memory_is_reported_and_given_back():
    moved, view = on_gpu(avatar_of_ball()), from_angles(0.1, 0.1, 1.0, focal_px=900.0, width=800, height=600)
    before = 0
    for again in (False, True):  # what torch keeps for good is made first
        with CompiledRenderer(moved, 800, 600) as renderer:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved()
            n_bytes = renderer([view], moved.params[0]).image.nbytes
            held = torch.cuda.memory_reserved() - before
            assert n_bytes < renderer.report()["graph_bytes"] and (not again or renderer.report()["graph_bytes"] <= held)
        assert renderer.report()["graph_bytes"] == 0
    assert torch.cuda.memory_reserved() <= before


@on_a_gpu
def test_a_capture_that_fails_on_a_gpu_leaves_the_stream_and_the_device_usable(monkeypatch):
    avatar = avatar_of_ball()
    moved, stream, real = on_gpu(avatar), torch.cuda.current_stream(), render_module.draw

    def waits(*args, **kwargs):
        out = real(*args, **kwargs)
        out.image.sum().item()  # the host cannot be told a number during a capture
        return out

    monkeypatch.setattr(render_module, "draw", waits)
    renderer, plain = CompiledRenderer(moved, WIDTH, HEIGHT), CompiledRenderer(moved, WIDTH, HEIGHT, graph=False)
    with pytest.warns(RuntimeWarning, match="could not be captured as a CUDA graph"):
        first = renderer(cameras(0.0), avatar.params[0]).image
    assert torch.cuda.current_stream() == stream and not torch.cuda.is_current_stream_capturing()
    assert torch.equal(first, plain(cameras(0.0), avatar.params[0]).image)
    monkeypatch.setattr(render_module, "draw", real)  # and another one can be captured
    again = CompiledRenderer(moved, WIDTH, HEIGHT)
    assert torch.equal(again(cameras(0.0), avatar.params[0]).image, first) and again.report()["captured"]


@on_a_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_graphs_on_two_devices_whichever_is_current():
    avatar, pictures = avatar_of_ball(), []
    for device in ("cuda:0", "cuda:1"):
        renderer = CompiledRenderer(on_gpu(avatar, device), WIDTH, HEIGHT)
        pictures.append(renderer(cameras(0.3), avatar.params[1]).image)
        assert renderer.report()["captured"] and pictures[-1].device == torch.device(device) and torch.cuda.current_device() == 0
    torch.testing.assert_close(pictures[0].cpu(), pictures[1].cpu(), rtol=1e-4, atol=1e-4)
