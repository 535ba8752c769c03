"""What the emulator cannot show of the rasterizer's lists: blocks that run at once, and lists of lengths that take it minutes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from gafcore import rasterization
from gafcore.ops import pair_room
from tests.cases import rasterization as cases
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]


@pytest.fixture(autouse=True)
def no_rooms():
    pair_room.forget()
    yield
    pair_room.forget()


def assert_ranks(n: int, cameras: int, depths: str, hidden: int = 0) -> None:
    column = cases.column(n, cameras, depths, hidden).to("cuda")
    colors = column.tensors["colors"].requires_grad_()
    image, _, meta = column.draw(rasterization)
    image.sum().backward()
    assert meta["n_pairs"] == meta["n_visible"] == cameras * n
    cases.assert_column_order(column, colors.grad.cpu())


LISTS = [(1, 3), (64, 600), (300, 600), (700, 9), (1024, 40), (1025, 40), (2048, 40), (2500, 600), (5000, 20), (8192, 20), (8193, 20)]
LISTS += [(100_000, 3)]


# 600 cameras: 600 tiles and 6,000 groups of 32 splats, in seven blocks of sums, and more long lists than large blocks run at once.
@pytest.mark.parametrize("depths", cases.COLUMN_DEPTHS)
@pytest.mark.parametrize(("n", "cameras"), LISTS)
def test_lists_of_any_length_are_sorted_by_depth_then_row(n, cameras, depths):
    assert_ranks(n, cameras, depths)


@pytest.mark.parametrize("depths", ["ulps", "spread"])
def test_a_list_of_as_many_as_a_tile_shows(depths):
    assert_ranks(300_000, 1, depths)


@pytest.mark.parametrize(("n", "cameras"), [(100, 50), (5000, 3), (300_000, 2)])
def test_without_room_each_camera_has_its_splats_by_depth_then_row(n, cameras, monkeypatch):
    monkeypatch.setattr(pair_room.PairRoom, "fit", lambda self, n_pairs: False)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    monkeypatch.setattr(pair_room, "STEP", 16)
    assert_ranks(n, cameras, "spread", hidden=n // 3)


@pytest.mark.parametrize("resolution", ["802x550", "1024x1024"])
def test_gradients_repeat_their_bits(resolution):
    scene, upstream = cases.head_ball(100_000, resolution, 1)
    scene = replace(scene, Ks=scene.Ks.cuda())
    found = []
    for _ in range(3):
        tensors = {k: v.float().cuda().requires_grad_() for k, v in scene.inputs.items()}
        image = scene.call(rasterization, tensors)[0]
        (image * upstream.cuda()).sum().backward()
        found.append([image, *(v.grad for v in tensors.values())])
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))


@pytest.mark.parametrize(
    "scene",
    [
        cases.faint(cases.scene("faint", n=6000, scale=1.0, cameras=2, width=150, height=90, sh_degree=1)),
        cases.faint_in_front(cases.scene("opaque-behind", n=9000, scale=0.5, cameras=1, width=150, height=90, channels=4), 5000),
        cases.faint(cases.scene("six-channels", n=3000, scale=1.0, cameras=3, width=70, height=50, channels=6)),
    ],
    ids=str,
)
def test_lists_that_are_cut_repeat_their_bits_and_agree_with_the_cpu(scene):
    """Pieces of a list are joined by whichever block is done last."""
    want = frame(*on("cpu", scene))
    frames = [frame(*on("cuda", scene)) for _ in range(5)]
    tiles = len(scene.Ks) * -(-scene.width // 16) * -(-scene.height // 16)
    assert frames[0][-1] > 1024 * tiles
    for again in frames[1:]:
        assert all(torch.equal(a, b) for a, b in zip(frames[0], again, strict=True))
    with torch.no_grad():
        there, tensors = on("cuda", scene)
        assert torch.equal(there.call(rasterization, tensors)[0], frames[0][0])  # nothing is kept
    dark = 1e-4 * scene.width * scene.height  # light that one of the two cuts off, which is all that the background's gradient may have
    for i, (got, expected) in enumerate(zip(frames[0][:-1], want[:-1], strict=True)):
        error = (got.cpu() - expected).norm()
        allowed = 0.01 * expected.norm() + (dark if i == len(want) - 2 else 0)
        assert error < allowed, f"tensor {i}: error {error:.2e} of {expected.norm():.2e}"


def test_frames_in_inference_mode_do_not_spoil_those_outside():
    """The count of pairs comes back into one buffer, made by the second frame of a kind."""
    column = cases.column(100, 2).to("cuda")
    images = [column.draw(rasterization)[0]]
    with torch.inference_mode():
        images.append(column.draw(rasterization)[0].clone())
        torch.cuda.synchronize()
    images.append(column.draw(rasterization)[0])
    assert all(torch.equal(images[0], x) for x in images[1:])


def on(device, scene):
    """A scene and its tensors there."""
    return replace(scene, Ks=scene.Ks.to(device)), {k: v.to(device).requires_grad_() for k, v in scene.tensors(torch.float32).items()}


def frame(scene, tensors):
    """The image, and gradients of a weighted sum of it."""
    image, _, meta = scene.call(rasterization, tensors)
    weights = torch.linspace(0, 1, image.numel(), device=image.device).view_as(image)
    return [image.detach(), *torch.autograd.grad((image * weights).sum(), list(tensors.values())), meta["n_pairs"]]


@pytest.mark.parametrize("threads", [False, True], ids=["one-thread", "a-thread-a-stream"])
def test_two_streams_at_once_give_the_images_of_one_after_the_other(threads):
    """Of frames of one kind, which share their room."""
    sizes = dict(n=20_000, cameras=2, width=400, height=300, sh_degree=1)
    scenes = [on("cuda", cases.scene(seed=i, scale=0.004 * (1 + i), **sizes)) for i in range(2)]
    for _ in range(3):  # until the room holds either
        want = [frame(*s) for s in scenes]
        torch.cuda.synchronize()
    (kind,) = pair_room.report()
    assert want[0][-1] < want[1][-1] < kind["capacity"] < 8 * want[0][-1]
    streams, got, errors = [torch.cuda.Stream() for _ in scenes], [[] for _ in scenes], []

    def draw(i):
        with torch.cuda.stream(streams[i]):
            got[i].append(frame(*scenes[i]))

    def draw_all(i):
        try:
            for _ in range(10):
                draw(i)
        except Exception as error:
            errors.append(error)

    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)  # so that both have much to do when they begin
    if threads:
        workers = [threading.Thread(target=draw_all, args=(i,)) for i in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    else:
        for _ in range(10):
            draw(0)
            draw(1)
    torch.cuda.synchronize()
    assert errors == [] and [len(frames) for frames in got] == [10, 10]
    for frames, expected in zip(got, want, strict=True):
        for found in frames:
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_devices_draw_the_same_in_rooms_of_their_own():
    scene = cases.scene(n=5000, cameras=2, width=200, height=150, sh_degree=1, scale=0.01)
    with torch.cuda.device(0):
        there = [frame(*on("cuda:1", scene)) for _ in range(3)]  # the first is waited for, later ones are not
        assert torch.cuda.current_device() == 0
        here = frame(*on("cuda:0", scene))
    assert all(x.device.index == 1 for x in there[0])
    assert {kind["device"] for kind in pair_room.report()} == {"cuda:0", "cuda:1"}
    for a, b, again in zip(there[0], here, there[2], strict=True):
        assert torch.equal(a, again)
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-3, atol=1e-4 * float(b.abs().max()))
