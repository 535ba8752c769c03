"""What the emulator cannot show of the rasterizer's lists: blocks that run at once, and lists of lengths that take it minutes."""

from __future__ import annotations

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


def assert_ranks(n: int, cameras: int) -> None:
    tensors, Ks, ranks = cases.column(n, cameras)
    tensors = {k: v.cuda() for k, v in tensors.items()}
    tensors["colors"].requires_grad_()
    image, _, meta = rasterization(*tensors.values(), Ks.cuda(), 1, 1)
    image.sum().backward()
    assert meta["n_pairs"] == meta["n_visible"] == cameras * n
    seen = ranks < 2000  # what lies behind is dark
    assert (cases.column_ranks(tensors["colors"].grad.cpu()) - ranks)[seen].abs().max() < 0.1


# 600 cameras: 600 tiles and 6,000 groups of 32 splats, in seven blocks of sums, and more long lists than large blocks run at once.
@pytest.mark.parametrize(
    ("n", "cameras"),
    [(1, 3), (64, 600), (300, 600), (700, 9), (1024, 40), (1025, 40), (1500, 600), (5000, 20), (100_000, 3), (300_000, 1)],
)
def test_lists_of_any_length_are_sorted_by_depth_then_row(n, cameras):
    assert_ranks(n, cameras)


@pytest.mark.parametrize(("n", "cameras"), [(100, 50), (5000, 3), (300_000, 2)])
def test_without_room_each_camera_has_its_splats_by_depth_then_row(n, cameras, monkeypatch):
    monkeypatch.setattr(pair_room.PairRoom, "fit", lambda self, n_pairs: False)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    monkeypatch.setattr(pair_room, "STEP", 16)
    assert_ranks(n, cameras)


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


def test_frames_in_inference_mode_do_not_spoil_those_outside():
    """The count of pairs comes back into one buffer, made by the second frame of a kind."""
    tensors, Ks, _ = cases.column(100, 2)
    tensors, Ks = {k: v.cuda() for k, v in tensors.items()}, Ks.cuda()
    images = [rasterization(*tensors.values(), Ks, 1, 1)[0]]
    with torch.inference_mode():
        images.append(rasterization(*tensors.values(), Ks, 1, 1)[0].clone())
        torch.cuda.synchronize()
    images.append(rasterization(*tensors.values(), Ks, 1, 1)[0])
    assert all(torch.equal(images[0], x) for x in images[1:])
