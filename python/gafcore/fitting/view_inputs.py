"""What an iteration is given by a prior, as tensors on the fit's device: beside `inputs.Inputs`, and for the same reason."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.cameras import stack
from gafcore.fitting.prior import PriorViews
from gafcore.types import Camera


@dataclass(frozen=True)
class ViewInputs:
    """A prior's views, and what they should look like.

    Attributes:
        viewmats: Of the views' cameras.
        Ks: Likewise.
        targets: As `PriorViews` has them; so are the following.
        weight: float64.
        row: The moment as an index, int64; that of the iteration's frame where absent.
        background: Of the iteration where absent.
        mask: All 1 where absent.
        eps2d: The rasterizer's own where absent.
        width: Of the renders, pixels.
        height: Likewise.
        squared: As in `PriorViews`.
        yields: Likewise.
    """

    viewmats: Float[Tensor, "C 4 4"]
    Ks: Float[Tensor, "C 3 3"]
    targets: Float[Tensor, "C h w 3"]
    weight: Float[Tensor, ""]
    row: Int[Tensor, "1"] | None
    background: Float[Tensor, "3"] | None
    mask: Float[Tensor, "C h w"] | None
    eps2d: Float[Tensor, ""] | None
    width: int
    height: int
    squared: bool
    yields: float

    @property
    def cameras(self) -> list[Camera]:
        return [Camera(viewmat, K, self.width, self.height) for viewmat, K in zip(self.viewmats, self.Ks, strict=True)]

    @property
    def kind(self) -> tuple[object, ...]:
        """Views of one kind can be copied into each other."""
        sizes = tuple((name, x.shape, x.dtype) for name, x in self._tensors().items())
        return (*sizes, self.width, self.height, self.squared, self.yields)

    def clone(self) -> ViewInputs:
        copies: dict[str, Any] = {name: x.clone() for name, x in self._tensors().items()}
        return replace(self, **copies)

    def copy_(self, other: ViewInputs) -> None:
        """Take over the values of other views of this kind."""
        for x, y in zip(self._tensors().values(), other._tensors().values(), strict=True):
            x.copy_(y, non_blocking=True)

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: x for name, x in values.items() if isinstance(x, Tensor)}


def view_inputs(views: PriorViews | None, device: torch.device) -> ViewInputs | None:
    """A prior's answer on `device`; None where it says nothing. Numbers are written there, not sent: nothing waits for them."""
    if views is None or views.weight == 0:
        return None
    viewmats, Ks = (x.to(device) for x in stack(views.cameras))
    blur = views.eps2d if views.eps2d is None or isinstance(views.eps2d, Tensor) else torch.full((), views.eps2d, device=device)
    return ViewInputs(
        viewmats=viewmats,
        Ks=Ks,
        targets=views.targets.detach().to(device),
        weight=torch.full((), views.weight, dtype=torch.float64, device=device),
        row=None if views.timestep is None else torch.full((1,), views.timestep, dtype=torch.int64, device=device),
        background=None if views.background is None else views.background.to(device),
        mask=None if views.mask is None else views.mask.to(device),
        eps2d=None if blur is None else blur.to(device),
        width=views.cameras[0].width,
        height=views.cameras[0].height,
        squared=views.squared,
        yields=views.yields,
    )
