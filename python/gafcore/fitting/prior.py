"""Where a prior on unseen views joins a fit: `fit(..., prior=...)`.

A prior looks at the avatar's current renders from cameras of its own choice and answers with pictures that they should resemble
(GAF's multi-view diffusion: pseudo ground truths). The fit adds L_img(render, target) for those views; no gradient flows into the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.rigs import Rig
from gafcore.types import Camera, Capture, Frame, RigParams


@dataclass(frozen=True)
class PriorRequest:
    """What a prior is told at an iteration.

    Tensors are on the CPU, also while the fit computes on a GPU; for a `DevicePrior`, those of `frame`'s picture and mask, `params`, `rig`,
    `vertices`, `background` and what `render` draws are where it asked for them. Cameras and the generator are always on the CPU.

    Attributes:
        iteration: From 1.
        iterations: Of the whole fit.
        frame: The training frame of this iteration: the picture that the prior may condition on.
        params: The rig at that frame's timestep, as tuned so far (no gradient).
        rig: The capture's, with the person's identity baked in: `params` has no shape.
        vertices: The posed rig, metres (no gradient).
        captured_on: RGB behind the head in `frame`'s picture.
        render: Draws the current avatar at that timestep from any cameras of one image size, without gradients; over `background` unless
            another one is given.
        background: RGB behind the head in this iteration.
        generator: The only source of randomness that keeps a resumed run equal to an uninterrupted one.
    """

    iteration: int
    iterations: int
    frame: Frame
    params: RigParams
    rig: Rig
    vertices: Float[Tensor, "V 3"]
    captured_on: tuple[float, float, float]
    render: Callable[..., Float[Tensor, "C H W 3"]]
    background: Float[Tensor, "3"]
    generator: torch.Generator


@dataclass(frozen=True)
class PriorViews:
    """Extra views and what they should look like, on any device: what is elsewhere than the avatar is moved, which on a GPU waits for it.

    Attributes:
        cameras: Of one image size.
        targets: Of that size, or smaller by a whole factor: renders are averaged to it before they are compared.
        weight: Scales the loss of these views; with 0 they are not drawn.
        timestep: The moment they show; that of the request's frame where absent.
        background: RGB behind the head in the targets; the request's where absent.
        mask: Weights of pixels, 0 to 1; the loss shrinks with their mean. All 1 where absent.
        squared: Compare by the mean squared difference, times 0.5, instead of L_img: score distillation.
        eps2d: Blur of every splat in these renders, square pixels, as a number or a tensor []; the rasterizer's own where absent.
        yields: Leave out of these views' gradient what points against that of the rest of the loss (the training picture and the
            penalties), at most so many times that (`yielding.py`).
    """

    cameras: Sequence[Camera]
    targets: Float[Tensor, "C H W 3"]
    weight: float = 1.0
    timestep: int | None = None
    background: Float[Tensor, "3"] | None = None
    mask: Float[Tensor, "C h w"] | None = None
    squared: bool = False
    eps2d: float | Float[Tensor, ""] | None = None
    yields: float = 0.0


class Prior(Protocol):
    """Anything callable like this. `None` means: nothing at this iteration."""

    def __call__(self, request: PriorRequest) -> PriorViews | None: ...


@runtime_checkable
class DevicePrior(Protocol):
    """A prior that need not be asked on the CPU."""

    def move_to(self, device: torch.device) -> torch.device:
        """Called first of all, once a fit: the fit computes on `device`. Move there what computes, and return where requests' tensors
        should be: `device`, or the CPU."""
        ...


@runtime_checkable
class RecallingPrior(Protocol):
    """A prior whose answers depend, at most iterations, on nothing but what it remembers: on a GPU those are captured as graphs."""

    def recalls(self, iteration: int, iterations: int) -> bool:
        """Whether that is so at this iteration (from 1). Else it is called, as any prior."""
        ...

    def recall(self, iteration: int, iterations: int, generator: torch.Generator) -> PriorViews | None:
        """The answer at such an iteration, the same as that of a call, which may still come: it changes nothing. Its tensors should be
        on the fit's device, sizes and `yields` the same most of the time: for each kind of answers there is another graph."""
        ...


@runtime_checkable
class StatefulPrior(Protocol):
    """A prior that remembers: checkpoints keep its `state`, and a resumed fit hands it back before anything else is asked.

    States are on the CPU, so that a fit can go on on another device.
    """

    @property
    def identity(self) -> str:
        """Equal for equal weights and settings."""
        ...

    def __call__(self, request: PriorRequest) -> PriorViews | None: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


@runtime_checkable
class MeasuredPrior(Protocol):
    """A prior that wants to know, before the first iteration, how good it is on this capture. What it finds is part of its `state`."""

    def measure(self, capture: Capture, numbers: Sequence[int]) -> None:
        """Look at the training frames `numbers` of `capture`, which is on the CPU, with the parameters that the fit starts from. A resumed
        fit does not ask again."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What a reader of the fit's figures should know of it."""
        ...
