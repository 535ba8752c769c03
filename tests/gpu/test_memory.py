"""A GPU's memory that runs out in the middle of our ops: what is said, and that the next frame is well. `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from gafcore import rasterization, rasterize_mesh
from gafcore.devices import free_workspaces, workspaces
from gafcore.ops import pair_room
from tests.cases import rasterization as cases
from tests.cases.meshes import mesh_cases
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]
SCENE = cases.scene(n=5000, cameras=2, width=400, height=300, sh_degree=1, scale=0.01)
HUGE = 4096 * pair_room.STEP  # 16.8 million pairs, of an earlier frame: 0.34 GB of scratch memory, 0.4 kept, 0.8 for backward
LEFT = 150_000_000  # bytes, far more than the scene needs


@pytest.fixture(autouse=True)
def nothing_reserved():
    free_workspaces()
    yield
    free_workspaces()


@contextmanager
def memory_left(n_bytes: int) -> Iterator[None]:
    """No more than this beside what is in use."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + n_bytes) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def on_gpu(grad: bool):
    """The scene and its tensors."""
    tensors = {k: v.cuda().requires_grad_(grad) for k, v in SCENE.tensors(torch.float32).items()}
    return replace(SCENE, Ks=SCENE.Ks.float().cuda()), tensors


def draw(scene, tensors):
    image = scene.call(rasterization, tensors)[0]
    return image, (image * torch.linspace(0, 1, image.numel(), device="cuda").view_as(image)).sum()


def frame(grad: bool) -> list[torch.Tensor]:
    scene, tensors = on_gpu(grad)
    image, loss = draw(scene, tensors)
    return [image.detach(), *(torch.autograd.grad(loss, list(tensors.values())) if grad else ())]


def settled(grad: bool) -> list[torch.Tensor]:
    """A frame whose room is known. Its pairs are more than the least room there is."""
    frame(grad)
    torch.cuda.synchronize()
    (kind,) = workspaces()
    assert pair_room.STEP < kind["n_pairs"] < kind["capacity"] < HUGE // 8
    return frame(grad)


def leave_huge_room() -> None:
    torch.cuda.synchronize()
    (room,) = pair_room._rooms.values()
    room.listen()
    room.capacity = HUGE


def assert_well(want: list[torch.Tensor], grad: bool) -> None:
    """As before, bits included, once the count of a frame has been heard of."""
    frame(grad)
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(frame(grad), want, strict=True))
    (kind,) = workspaces()
    assert kind["capacity"] < HUGE // 8


@pytest.mark.parametrize(("grad", "asked"), [(False, "of scratch memory"), (True, "to keep for backward")], ids=["scratch", "kept"])
def test_a_frame_after_a_huge_one_is_drawn_without_its_room(grad, asked):
    want = settled(grad)
    leave_huge_room()
    message = rf"found no memory for room for {HUGE:,} pairs of splats and tiles \(\w+ asked for [\d,]+ bytes {asked}\)"
    with memory_left(LEFT), pytest.warns(RuntimeWarning, match=message):
        got = frame(grad)
    torch.testing.assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(got[1:], want[1:], strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()
    with memory_left(LEFT):
        assert_well(want, grad)


def test_backward_says_what_it_asked_for():
    want = settled(grad=True)
    leave_huge_room()
    scene, tensors = on_gpu(grad=True)
    _, loss = draw(scene, tensors)
    message = rf"found no memory for gradients with room for {HUGE:,} pairs of splats and tiles: rasterization_blend_bwd asked for [\d,]+"
    with memory_left(LEFT), pytest.raises(torch.OutOfMemoryError, match=message) as caught:
        torch.autograd.grad(loss, list(tensors.values()))
    assert "Draw fewer cameras at a time" in str(caught.value) and workspaces() == []
    del loss, caught
    with memory_left(LEFT):
        assert_well(want, grad=True)


def test_where_nothing_is_left_the_error_says_whose_frame_it_was():
    want = settled(grad=False)
    scene, tensors = on_gpu(grad=False)
    with memory_left(0), pytest.raises(torch.OutOfMemoryError, match=r"rasterization of 2 camera\(s\).* found no memory for"):
        draw(scene, tensors)
    assert_well(want, grad=False)


def test_every_ops_scratch_memory_names_its_op():
    vertices, faces, viewmats, Ks, *_ = (x.cuda() if isinstance(x, torch.Tensor) else x for x in mesh_cases()[0].inputs(torch.float32))
    side = 4096
    results = viewmats.shape[0] * side * side * 20  # bytes; scratch memory is 8 a pixel
    with (
        memory_left(int(1.2 * results)),
        pytest.raises(torch.OutOfMemoryError, match=r"rasterize_mesh_fwd asked for [\d,]+ bytes of scratch memory: CUDA out of memory"),
    ):
        rasterize_mesh(vertices, faces, viewmats, Ks, side, side)
    assert (rasterize_mesh(vertices, faces, viewmats, Ks, 64, 64).triangle_ids >= 0).any()
