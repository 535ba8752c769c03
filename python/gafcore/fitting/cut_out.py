"""A training picture without what is behind the head, as priors take it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.frames import checked_image, checked_mask, describe
from gafcore.errors import InputError
from gafcore.types import Frame


def cut_out(frame: Frame, captured_on: tuple[float, float, float]) -> Float[Tensor, "H W 4"]:
    """The picture as colour times coverage, and coverage.

    Args:
        frame: With a mask.
        captured_on: RGB behind the head in its picture.

    Raises:
        InputError: The frame has no mask.
    """
    mask = checked_mask(frame)
    if mask is None:
        raise InputError(f"{describe(frame)}: has no mask, which the prior needs to tell the head from what is behind it")
    color = checked_image(frame) - (1 - mask)[..., None] * mask.new_tensor(captured_on)
    return torch.cat([color.clamp(min=0), mask[..., None]], -1)
