"""Drawing one avatar again and again: a moving camera, a moving face, everything else fixed.

On a GPU the whole frame (skinning, binding, projection, sorting, blending) is one CUDA graph, replayed with new numbers in the same memory:
at avatar scale launching its kernels one by one costs more than running them. On the CPU, and where a graph cannot be captured, the same
code runs step by step.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.rigged import Render, RiggedAvatar, draw, pose
from gafcore.ops import pair_room
from gafcore.types import Camera, RigParams

T = TypeVar("T")
# Runs a function so that it can be repeated; returns what it returned, and how to repeat it.
Capture = Callable[[Callable[[], Render]], tuple[Render, Callable[[], None]]]

_MOVING = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
_WARM_UP = 2  # runs before a capture: libraries and caches set themselves up, and the room for pairs becomes known


class Replay:
    """A captured graph: calling it computes its result anew, in the same memory."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def __call__(self) -> None:
        self._graph.replay()

    def n_bytes(self) -> int:
        """Device memory that is the graph's alone for as long as it lives. Asking takes milliseconds."""
        pool = tuple(self._graph.pool())
        return sum(s["total_size"] for s in torch.cuda.memory_snapshot() if tuple(s["segment_pool_id"]) == pool)


@contextmanager
def _no_collection() -> Iterator[None]:
    """An old graph or event that is collected now would end the capture."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """Always the same one: matrix products keep a workspace of megabytes for every stream that they were run on."""
    return torch.cuda.Stream(device)


def capture_graph(fn: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Capture `fn` as a CUDA graph on the current device. Returns where its result will be, and how to compute it (a `Replay`).

    What `fn` raises is raised, and a RuntimeError where it does what cannot be captured; then nothing is left behind. `torch.cuda.graph`
    would leave its own stream current, and has one for all devices. One capture at a time, as torch asks for.
    """
    side, graph = _capture_stream(torch.cuda.current_device()), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            fn()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # the graph gets memory of its own, beside what these runs took
        out = record(graph, fn)
    return out, Replay(graph)


def record(graph: torch.cuda.CUDAGraph, fn: Callable[[], T]) -> T:
    """Call `fn` while `graph` is captured on the current stream, which must not be the default one. Nothing is computed yet.

    What `fn` raises is raised, and the capture has ended then.
    """
    with _no_collection():
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            out = fn()
        except BaseException:
            with suppress(RuntimeError):  # what went wrong has ended the capture, and is what the caller should hear of
                graph.capture_end()
            raise
        graph.capture_end()
    return out


def _personal(avatar: RiggedAvatar) -> RiggedAvatar:
    """The same avatar on a rig without identity: what never moves is added up once."""
    rig, params = avatar.rig, avatar.params
    template = rig.template + torch.einsum("s,svc->vc", params.shape, rig.shape_basis)
    if params.static_offset is not None:
        template = template + params.static_offset
    still = replace(params, shape=params.shape[:0], static_offset=None)
    return replace(avatar, rig=replace(rig, template=template, shape_basis=rig.shape_basis[:0]), params=still)


class CompiledRenderer:
    """Pictures of a fixed avatar from changing cameras in changing poses.

    A graph that cannot be captured is a warning, and pictures are then drawn kernel by kernel. `close()`, or leaving a `with` block, gives
    the graph's memory back.

    Args:
        avatar: What to draw; changes to its tensors after this are not seen.
        width: Pixels.
        height: Pixels.
        n_views: Pictures a call.
        n_poses: 1, or `n_views` for a pose of its own in each picture.
        background: RGB; white where absent.
        half: Keep the harmonics, four fifths of what a frame reads of its avatar, in half precision: errors well below 1/255.
        graph: Whether to replay a CUDA graph; by default where the avatar is on a GPU.
        capture: How to make a repeatable call; for tests.

    Raises:
        ValueError: `n_poses` is neither 1 nor `n_views`, or a graph is asked for without a GPU.

    Example:
        >>> renderer = CompiledRenderer(avatar, 550, 802)
        >>> image = renderer([camera], avatar.params[3]).image  # [1, 802, 550, 3]
    """

    def __init__(
        self,
        avatar: RiggedAvatar,
        width: int,
        height: int,
        *,
        n_views: int = 1,
        n_poses: int = 1,
        background: Float[Tensor, "3"] | None = None,
        half: bool = False,
        graph: bool | None = None,
        capture: Capture = capture_graph,
    ) -> None:
        device = avatar.means.device
        if n_poses not in (1, n_views):
            raise ValueError(f"n_poses must be 1 or n_views ({n_views}), got {n_poses}")
        if graph and device.type != "cuda" and capture is capture_graph:
            raise ValueError(f"a CUDA graph needs an avatar on a GPU, got one on {device}; move it with .to() or leave graph out")
        self._size, self._device = (width, height), device
        self._capture = capture if (device.type == "cuda" if graph is None else graph) else None
        self._obstacle = ""
        self._capacity = 0
        self._out: Render | None = None
        self._replay: Callable[[], None] | None = None
        with torch.inference_mode(False):  # what is written to must serve calls in that mode and outside
            self._avatar = _personal(replace(avatar, sh=avatar.sh.half()) if half else avatar)
            self._background = avatar.means.new_ones(3) if background is None else background.to(avatar.means)
            self._params = self._avatar.rig.neutral(n_poses)
            self._cameras = [Camera(avatar.means.new_zeros(4, 4), avatar.means.new_zeros(3, 3), width, height) for _ in range(n_views)]
            self._inputs = [x for camera in self._cameras for x in (camera.viewmat, camera.K)]
            self._inputs += [getattr(self._params, name) for name in _MOVING]
            self._counts = torch.zeros(1, dtype=torch.int64, pin_memory=device.type == "cuda")

    def __call__(self, cameras: Sequence[Camera], params: RigParams) -> Render:
        """Draw.

        Args:
            cameras: `n_views` of them, of the size given at the start; on any device.
            params: `n_poses` timesteps. Shape and static offset are the avatar's, whatever is given.

        Returns:
            Image [n_views, H, W, 3], alpha [n_views, H, W] and the rasterizer's `meta`. With a graph they lie in memory that the next call
            overwrites: copy what must outlive it.

        Raises:
            ValueError: Numbers or sizes differ from those given at the start.
        """
        with torch.inference_mode(False), torch.no_grad():
            self._move(cameras, params)
            with self._on_its_device():
                if self._capture is not None and (self._replay is None or self._outgrown()):
                    self._make()
                if self._replay is None:
                    return self._draw()
                self._replay()
        assert self._out is not None
        return self._out

    def report(self) -> dict[str, Any]:
        """What is kept between calls.

        Returns:
            `captured`: whether there is a graph; `graph_bytes`: device memory that is its alone; `capacity`: the pairs of splats and tiles
            that it has room for; `n_pairs`: those of an earlier picture, as last heard of; `obstacle`: why no graph could be captured, or
            "". Without a graph a frame's memory is that of any other (`gafcore.devices.workspaces`).
        """
        n_bytes = self._replay.n_bytes() if isinstance(self._replay, Replay) else 0
        return dict(
            captured=self._replay is not None,
            graph_bytes=n_bytes,
            capacity=self._capacity,
            n_pairs=int(self._counts[0]),
            obstacle=self._obstacle,
        )

    def close(self) -> None:
        """Give the graph's memory back, once it is done. Pictures that are still held stay as they are; another call captures anew."""
        self._drop()
        if self._device.type == "cuda":
            with self._on_its_device():
                torch.cuda.empty_cache()

    def __enter__(self) -> CompiledRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_its_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _make(self) -> None:
        """Capture a graph; where that fails, never try again."""
        assert self._capture is not None
        self._drop()  # its memory is not needed beside the new one's
        try:
            self._out, self._replay = self._capture(self._draw)
        except RuntimeError as error:
            self._capture = None
            self._obstacle = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"pictures of an avatar could not be captured as a CUDA graph ({self._obstacle}); they are drawn kernel by kernel",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        self._capacity = self._room().capacity

    def _drop(self) -> None:
        """Drop the graph once its work has ended, on whichever stream it was asked for: it writes to memory that others would get."""
        if self._replay is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._out = self._replay = None
        self._capacity = 0

    def _move(self, cameras: Sequence[Camera], params: RigParams) -> None:
        """Copy the new numbers to where the graph reads them."""
        width, height = self._size
        if len(cameras) != len(self._cameras) or any((c.width, c.height) != self._size for c in cameras):
            got = ", ".join(f"{c.width}x{c.height}" for c in cameras)
            raise ValueError(
                f"expected {len(self._cameras)} camera(s) of {width}x{height}, got {got or 'none'}; make another CompiledRenderer"
            )
        if len(params) != len(self._params):
            raise ValueError(f"expected {len(self._params)} pose(s), got {len(params)}; make another CompiledRenderer")
        new = [x for camera in cameras for x in (camera.viewmat, camera.K)] + [getattr(params, name) for name in _MOVING]
        torch._foreach_copy_(self._inputs, new, non_blocking=True)  # one launch where both are on the GPU

    def _draw(self) -> Render:
        out = draw(pose(self._avatar, self._params), self._cameras, self._background)
        self._counts.copy_(out.meta["n_pairs"][None], non_blocking=True)
        return out

    def _room(self) -> pair_room.PairRoom:
        return pair_room.room_of(self._avatar.means, len(self._cameras), len(self._avatar), *self._size)

    def _outgrown(self) -> bool:
        """Whether the last frame whose count has arrived left little room: a frame with none is drawn right, but slowly."""
        n_pairs = int(self._counts[0])
        if n_pairs <= pair_room.TIGHT * self._capacity:
            return False
        room = self._room()
        if room.short:  # of memory: another graph would find no more
            return False
        room.fit(n_pairs)
        return room.capacity > self._capacity
