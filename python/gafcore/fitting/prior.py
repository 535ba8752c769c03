"""Where a prior on unseen views joins a fit: `fit(..., prior=...)`.

A prior looks at the avatar's current renders from cameras of its own choice and answers with pictures that they should resemble
(GAF's multi-view diffusion: pseudo ground truths). The fit adds L_img(render, target) for those views; no gradient flows into the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.types import Camera, Frame, RigParams


@dataclass(frozen=True)
class PriorRequest:
    """What a prior is told at an iteration.

    Attributes:
        iteration: From 1.
        frame: The training frame of this iteration: the picture that the prior may condition on.
        params: The rig at that frame's timestep, as tuned so far (no gradient).
        render: Draws the current avatar at that timestep from any cameras of one image size, without gradients.
        background: RGB behind the head in this iteration.
        generator: The only source of randomness that keeps a resumed run equal to an uninterrupted one.
    """

    iteration: int
    frame: Frame
    params: RigParams
    render: Callable[[Sequence[Camera]], Float[Tensor, "C H W 3"]]
    background: Float[Tensor, "3"]
    generator: torch.Generator


@dataclass(frozen=True)
class PriorViews:
    """Extra views and what they should look like; `weight` scales their loss."""

    cameras: Sequence[Camera]
    targets: Float[Tensor, "C H W 3"]
    weight: float = 1.0


class Prior(Protocol):
    """Anything callable like this. `None` means: nothing at this iteration."""

    def __call__(self, request: PriorRequest) -> PriorViews | None: ...
