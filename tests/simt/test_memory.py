"""Memory that runs out while the GPU rasterizer draws: what is drawn all the same, what is said, and that the next frame is well."""

from __future__ import annotations

import warnings

import pytest
import torch

from gafcore import rasterization
from gafcore.ops import pair_room, rasterization_blend
from gafcore.render import CompiledRenderer
from tests.cases import rasterization as cases
from tests.simt.emulator import KIND, Device, emulated
from tests.test_render import HEIGHT, WIDTH, avatar_of_ball, cameras

pytestmark = pytest.mark.skipif(KIND == "tsan", reason="what a kernel does is the same; the race detector sees it elsewhere")
SCENE = cases.scene("two", n=40, cameras=2, sh_degree=0, width=33, height=18)
HUGE = 100 * pair_room.STEP  # pairs that an earlier frame of the kind had
FRAME = "rasterization of 2 camera\\(s\\), 40 Gaussians and 33x18 pixels found no memory for "
REAL_DEVICE, REAL_KEPT = Device.allocate, rasterization_blend._new_kept


@pytest.fixture(autouse=True)
def no_rooms():
    pair_room.forget()
    yield
    pair_room.forget()


@pytest.fixture
def memory(monkeypatch):
    """Sets how many bytes a block of scratch memory and of what is kept may have."""

    def limit(scratch: int = 1 << 40, kept: int = 1 << 40) -> None:
        def allocate(device, n_bytes):
            if n_bytes > scratch:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {n_bytes}")
            return REAL_DEVICE(device, n_bytes)

        class Full:  # of a tensor only what is asked for here
            def new_empty(self, *_, **__):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

        def new_kept(like, rows, columns):
            return REAL_KEPT(Full() if rows * columns > kept else like, rows, columns)

        monkeypatch.setattr(Device, "allocate", allocate)
        monkeypatch.setattr(rasterization_blend, "_new_kept", new_kept)

    return limit


def draw(grad: bool = True):
    tensors = SCENE.tensors(torch.float32, grad=grad)
    with emulated():
        image = SCENE.call(rasterization, tensors)[0]
        if grad:
            (image * torch.linspace(0, 1, image.numel()).view_as(image)).sum().backward()
    return [image.detach(), *(tensors[k].grad for k in cases.NAMES)] if grad else [image]


def room() -> dict:
    (kind,) = pair_room.report()
    return kind


def huge_frame_before() -> None:
    """Its room is left."""
    (found,) = pair_room._rooms.values()
    found.capacity = HUGE


def assert_close(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("grad", "limits"),
    [(False, dict(scratch=2_000_000)), (True, dict(scratch=4_000_000)), (True, dict(kept=4_000_000))],
    ids=["scratch", "scratch-beside-kept", "kept"],
)
def test_a_frame_after_a_huge_one_is_drawn_without_its_room(memory, grad, limits):
    want = draw(grad)
    huge_frame_before()
    memory(**limits)
    asked = "to keep for backward" if "kept" in limits else "of scratch memory"
    message = rf"{FRAME}room for {HUGE:,} pairs of splats and tiles \(\w+ asked for [\d,]+ bytes {asked}\)\. Frames are drawn without pairs"
    with pytest.warns(RuntimeWarning, match=message):
        assert_close(draw(grad), want)
    assert room()["n_pairs"] < room()["capacity"] == pair_room.STEP
    for a, b in zip(draw(grad), want, strict=True):  # as before, bits included
        assert torch.equal(a, b)


def test_memory_that_stays_short_is_said_once(memory, monkeypatch):
    """Every frame then looks anew whether there is room."""
    monkeypatch.setattr(pair_room, "STEP", 16)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    want = draw()
    assert room()["capacity"] > room()["n_pairs"] > 16
    needed = room()["scratch_bytes"]
    pair_room.forget()
    memory(scratch=needed - 1)
    with pytest.warns(RuntimeWarning, match=FRAME):
        assert_close(draw(), want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(draw(), want)
    memory()
    for a, b in zip(draw(), want, strict=True):
        assert torch.equal(a, b)


def test_an_error_says_what_was_asked_for_and_the_next_frame_is_well(memory):
    (want,) = draw(grad=False)
    huge_frame_before()
    memory(scratch=100)
    message = (
        rf"{FRAME}room for {HUGE:,} pairs of splats and tiles \(rasterization_blend_fwd asked for [\d,]+ bytes of scratch memory\), "
        r"nor without it: rasterization_blend_fwd asked for [\d,]+ bytes of scratch memory: CUDA out of memory\. Tried to allocate \d+\. "
        r"Draw fewer cameras at a time .*gafcore\.devices\.free_workspaces"
    )
    with pytest.raises(torch.OutOfMemoryError, match=message):
        draw(grad=False)
    memory()
    assert torch.equal(draw(grad=False)[0], want)


def test_nothing_is_tried_again_while_a_graph_is_captured(memory, monkeypatch):
    """It would be slow for good."""
    draw(grad=False)
    huge_frame_before()
    memory(scratch=2_000_000)
    monkeypatch.setattr(rasterization_blend, "capturing", lambda _: True)
    with pytest.raises(torch.OutOfMemoryError, match=rf"{FRAME}room for {HUGE:,} pairs of splats and tiles: rasterization_blend_fwd asked"):
        draw(grad=False)
    assert room()["capacity"] == pair_room.STEP


def test_a_renderer_draws_on_and_tries_a_graph_once(memory, monkeypatch):
    """Its warm-up draws without room, and its capture, which may not, fails."""
    monkeypatch.setattr(pair_room, "STEP", 16)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    avatar, captures, capturing = avatar_of_ball(), [], [False]
    monkeypatch.setattr(rasterization_blend, "capturing", lambda _: capturing[0])

    def capture(fn):
        captures.append(1)
        fn()
        capturing[0] = True
        try:
            return fn(), lambda: None
        finally:
            capturing[0] = False

    with emulated():
        want = [CompiledRenderer(avatar, WIDTH, HEIGHT)(cameras(0.3 * i), avatar.params[i]).image for i in range(3)]
        needed = room()["scratch_bytes"]
        pair_room.forget()
        memory(scratch=needed // 2)
        renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture)
        with pytest.warns(RuntimeWarning) as warned:
            got = [renderer(cameras(0.3 * i), avatar.params[i]).image for i in range(3)]
    assert len(captures) == 1
    assert [("drawn without pairs" in str(w.message), "could not be captured" in str(w.message)) for w in warned] == [(1, 0), (0, 1)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_backward_says_so_too_and_leaves_no_room_behind(memory):
    want = draw()
    huge_frame_before()
    memory(scratch=HUGE * 47)  # a pair's sums take 48 bytes, what forward needs less
    message = rf"{FRAME}gradients with room for {HUGE:,} pairs of splats and tiles: rasterization_blend_bwd asked for [\d,]+ bytes"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        draw()
    assert pair_room.report() == []
    for a, b in zip(draw(), want, strict=True):
        assert torch.equal(a, b)


def test_what_a_frame_took_is_reported():
    draw(grad=False)
    forward = room()
    assert forward["kept_bytes"] == forward["backward_scratch_bytes"] == 0
    pairs = forward["capacity"]
    assert 20 * pairs < forward["scratch_bytes"] < 40 * pairs  # two keys and a row each, and what the small picture takes
    draw()
    assert 24 * pairs < room()["kept_bytes"] < 50 * pairs
    assert 49 * pairs < room()["backward_scratch_bytes"] < 60 * pairs
