"""A frame's pixels, checked against its camera."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gafcore.errors import InputError
from gafcore.types import Frame


def checked_image(frame: Frame) -> Float[Tensor, "H W 3"]:
    """The frame's picture.

    Raises:
        InputError: It has another size than the frame's camera.
    """
    return _fitting(frame, frame.image(), (frame.camera.height, frame.camera.width, 3), "picture")


def checked_mask(frame: Frame) -> Float[Tensor, "H W"] | None:
    """The frame's mask, if it has one.

    Raises:
        InputError: It has another size than the frame's camera.
    """
    return None if frame.mask is None else _fitting(frame, frame.mask(), (frame.camera.height, frame.camera.width), "mask")


def describe(frame: Frame) -> str:
    return f"frame of timestep {frame.timestep_id or frame.timestep}, camera {frame.camera_id or frame.camera_index}"


def _fitting(frame: Frame, pixels: Tensor, expected: tuple[int, ...], what: str) -> Tensor:
    if tuple(pixels.shape) != expected:
        raise InputError(f"{describe(frame)}: the {what} is {tuple(pixels.shape)}, its camera says {expected}")
    return pixels
