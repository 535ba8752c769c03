"""Gain and offset a channel between the avatar's colours and a camera's."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.rigged import Render


def corrected(view: Render, background: Float[Tensor, "3"], color: Float[Tensor, "2 3"] | None) -> Float[Tensor, "C H W 3"]:
    """The render as the camera would show it: `exp(color[0]) x + color[1]` on the head, the background as it is."""
    if color is None:
        return view.image
    alpha = view.alpha[..., None]
    behind = (1 - alpha) * background
    return (view.image - behind) * color[0].exp() + alpha * color[1] + behind
