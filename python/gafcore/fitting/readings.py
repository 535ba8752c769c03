"""The figures of iterations on their way from the device: looking at one at once would make the host wait for every iteration."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.errors import GafError

_TOGETHER = 10  # iterations whose figures are sent at a time
_ON_THE_WAY = 4  # parcels at most: the host is never farther ahead than these


class DivergedError(GafError):
    """The loss or a parameter became NaN or infinite."""


class StepResult:
    """What an iteration reports. On a GPU, the first look at a figure waits for the iteration to end."""

    def __init__(self, values: Float[Tensor, "2"]) -> None:
        """`values`: the loss, and the mean squared error on the full training picture."""
        self.values = values
        self._read: list[float] | None = None

    def _numbers(self) -> list[float]:
        if self._read is None:
            self._read = self.values.tolist()
        return self._read

    @property
    def loss(self) -> float:
        return self._numbers()[0]

    @property
    def psnr(self) -> float:
        """On the full training picture, dB; at most 120."""
        return psnr_of(self._numbers()[1])


def psnr_of(squared_error: float) -> float:
    """Peak signal-to-noise ratio, dB, of a mean squared error between values in 0..1; at most 120."""
    return -10 * math.log10(max(squared_error, 1e-12))


class Reading(NamedTuple):
    """The figures of an iteration, read. `frame` describes its training frame."""

    iteration: int
    frame: str
    n_gaussians: int
    loss: float
    psnr: float


@dataclass(frozen=True)
class _Sent:
    values: Tensor  # [n, 2] on the host, once there
    rows: list[tuple[int, str, int]]
    arrived: Callable[[], bool]
    wait: Callable[[], None]


def send(values: Float[Tensor, "n 2"]) -> tuple[Tensor, Callable[[], bool], Callable[[], None]]:
    """Copy to the host without waiting: the copy, whether it has arrived, and how to wait for it."""
    if values.device.type != "cuda":
        return values, lambda: True, lambda: None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event.query, event.synchronize


class Readings:
    """Collects results and gives them back, in order, when they have arrived: on the CPU at once, on a GPU some iterations later.

    Args:
        together: Iterations whose figures are sent at a time.
    """

    def __init__(self, together: int = _TOGETHER) -> None:
        self._together = together
        self._held: list[tuple[tuple[int, str, int], Tensor]] = []
        self._sent: deque[_Sent] = deque()

    def add(self, iteration: int, frame: str, n_gaussians: int, step: StepResult) -> None:
        self._held.append(((iteration, frame, n_gaussians), step.values))
        if len(self._held) >= self._together:
            self._send()

    def arrived(self, *, all_of_them: bool = False) -> list[Reading]:
        """What has come in since the last call; `all_of_them` waits for what has not.

        Raises:
            DivergedError: The loss of an iteration is not finite.
        """
        if all_of_them:
            self._send()
        readings = []
        while self._sent and (all_of_them or len(self._sent) > _ON_THE_WAY or self._sent[0].arrived()):
            parcel = self._sent.popleft()
            parcel.wait()
            for (iteration, frame, n), (loss, error) in zip(parcel.rows, parcel.values.tolist(), strict=True):
                check_loss(iteration, frame, loss)
                readings.append(Reading(iteration, frame, n, loss, psnr_of(error)))
        return readings

    def _send(self) -> None:
        if self._held:
            copy, arrived, wait = send(torch.stack([x for _, x in self._held]))
            self._sent.append(_Sent(copy, [row for row, _ in self._held], arrived, wait))
            self._held = []


def check_loss(iteration: int, frame: str, loss: float) -> None:
    """Raises DivergedError unless the loss of an iteration is finite."""
    if not math.isfinite(loss):
        raise DivergedError(f"iteration {iteration}: the loss is {loss} on the {frame}; try smaller learning rates")
