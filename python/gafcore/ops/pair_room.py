"""How much memory a frame on the GPU gets for its (splat, tile) pairs, without waiting to hear how many there are.

The number of pairs is known only on the device. The first frame of a kind (number of cameras and Gaussians, image size) is waited for
once, and drawn again if it had more pairs than expected. Every later frame gets a third as much room again as was needed lately; its own
count comes back while the GPU works on, and is looked at before a later frame. Having it sent takes the host a while, so where counts are
no news fewer are asked for, in the end one of eight, now sooner, now later, so that none of some cameras in turn is always passed over; a
count above all before, or near the room there is, has every frame asked again. A frame that has more pairs than room all the same is drawn
from the sorted splats without pairs: the same image, but slowly (docs/kernels/rasterization.md). So nothing waits, and nothing is ever
wrong. A room that memory has run out for is given up, so that a huge frame does not spoil those after it.

`gafcore.devices.workspaces` and `free_workspaces` are what users see of it.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

STEP = 4096  # capacities are multiples of it
MOST = (1 << 31) - STEP  # the kernels number pairs with 31 bits
KINDS = 64  # kinds of frames remembered
_FIRST_GUESS = 4  # pairs a Gaussian
_SPARE = 1.3  # room costs memory, some 50 bytes a pair with gradients, and no time
TIGHT = 0.85  # share of the room in use from which it grows
_NEWS = 1.02  # times the most pairs there were: a count above
_PATIENCE = 4  # counts in a row without news, for each frame more that is not asked, in the mean
_MOST_UNASKED = 7  # frames in a row, in the mean

Kind = tuple[torch.device, int, int, int, int]


def _rounded(pairs: float) -> int:
    return min(MOST, max(1, -(-int(pairs) // STEP)) * STEP)


class PairRoom:
    """The room of one kind of frames."""

    def __init__(self, n_splats: int) -> None:
        self.capacity = _rounded(_FIRST_GUESS * n_splats)
        self.n_pairs = 0  # as last heard of
        self.known = False
        self.kept_bytes: dict[tuple[int, int], int] = {}  # what backward needs, by capacity and channels
        self.used = dict.fromkeys(("kept_bytes", "scratch_bytes", "backward_scratch_bytes"), 0)  # by the last frame
        self.short = False  # of memory, when room was last asked for
        self._copy: Tensor | None = None  # on the host, with an event: made once, since both cost more than a copy
        self._arrived: torch.cuda.Event | None = None
        self._coming = False
        self._most = 0  # pairs that were news, since the room last changed
        self._calm = 0  # counts in a row that were none
        self._unasked = 0  # frames to come whose count is left where it is
        self._random = random.Random(0)

    def fit(self, n_pairs: int) -> bool:
        """Hear of a frame's pairs. Returns whether they were more than there was room for."""
        lacked = n_pairs > self.capacity
        self.n_pairs, self.known = n_pairs, True
        before = self.capacity
        if n_pairs > TIGHT * before or n_pairs * 8 < before:
            self.capacity = _rounded(_SPARE * n_pairs)
            self.kept_bytes.clear()
        if self.capacity != before or n_pairs > _NEWS * self._most:
            self._most = n_pairs
            self._ask_all()
        else:
            self._calm += 1
        return lacked and self.capacity >= n_pairs

    def give_up(self) -> None:
        """There is no memory for so much: nothing to spare, until the next frame whose count is heard of says how much is needed."""
        self.capacity = STEP
        self.kept_bytes.clear()
        self._ask_all()

    def _ask_all(self) -> None:
        self._calm = self._unasked = 0

    def _asks(self) -> bool:
        """Whether this frame's count is asked for."""
        if self._unasked > 0:
            self._unasked -= 1
            return False
        self._unasked = self._random.randint(0, 2 * min(self._calm // _PATIENCE, _MOST_UNASKED))
        return True

    def listen(self) -> None:
        """Hear of an earlier frame, if its count has arrived."""
        if self._coming and self._arrived.query():  # type: ignore[union-attr]
            self._coming = False
            self.fit(self._copy.tolist()[1])  # type: ignore[union-attr]

    def send(self, statistics: Tensor) -> bool:
        """Have a frame's count sent to the host, if asked for. Waits only for the first; returns whether that one must be drawn again."""
        if not self.known or not statistics.is_cuda:
            return self.fit(int(statistics[1]))
        if not self._coming and self._asks():
            if self._copy is None or self._arrived is None:
                with torch.inference_mode(False):  # it serves frames outside that mode, too
                    self._copy = torch.empty(3, dtype=torch.int64, pin_memory=True)
                self._arrived = torch.cuda.Event()
            self._copy.copy_(statistics, non_blocking=True)
            self._arrived.record(torch.cuda.current_stream(statistics.device))
            self._coming = True
        return False


_rooms: OrderedDict[Kind, PairRoom] = OrderedDict()


def room_of(like: Tensor, n_cameras: int, n_gaussians: int, width: int, height: int) -> PairRoom:
    """The room of this kind of frames on the device of `like`."""
    kind = (like.device, n_cameras, n_gaussians, width, height)
    room = _rooms.get(kind)
    if room is None:
        room = _rooms[kind] = PairRoom(n_cameras * n_gaussians)
        if len(_rooms) > KINDS:
            _rooms.popitem(last=False)
    _rooms.move_to_end(kind)
    return room


def found(like: Tensor, *sizes: int) -> PairRoom | None:
    """The room of a kind of frames (sizes as in `room_of`), if it is remembered."""
    return _rooms.get((like.device, *sizes))  # type: ignore[arg-type]


def drop(like: Tensor, *sizes: int) -> None:
    """Forget one kind of frames: its next one is waited for again."""
    _rooms.pop((like.device, *sizes), None)  # type: ignore[arg-type]


def report() -> list[dict[str, Any]]:
    """What is remembered, a dict for each kind of frames (see `gafcore.devices.workspaces`)."""
    names = ("n_cameras", "n_gaussians", "width", "height")
    return [
        dict(zip(names, sizes, strict=True), device=str(device), capacity=r.capacity, n_pairs=r.n_pairs, **r.used)
        for (device, *sizes), r in _rooms.items()
    ]


def forget() -> None:
    """Forget all kinds: the next frame of each is waited for again."""
    _rooms.clear()
