"""What an iteration is given, as tensors on the fit's device: a captured iteration reads them again and again from the same memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.frames import checked_image, checked_mask, describe
from gafcore.errors import InputError
from gafcore.fitting.view_inputs import ViewInputs
from gafcore.types import Camera, Frame

_VIEWMAT, _K, _BACKGROUND, _CHANGE, _ROW = slice(0, 16), slice(16, 25), slice(25, 28), slice(28, 31), slice(31, 32)


@dataclass(frozen=True)
class Inputs:
    """One training frame over one background.

    Attributes:
        numbers: View matrix, intrinsics, background, its change and the timestep, packed so that one copy brings them all.
        image: The frame's picture, uint8 (255 is 1) or floats in 0..1.
        mask: Likewise; None where the background stays as it was captured.
        width: Pixels.
        height: Pixels.
        views: What a prior says beside, where that is known before the iteration.
    """

    numbers: Float[Tensor, "32"]
    image: Tensor
    mask: Tensor | None
    width: int
    height: int
    views: ViewInputs | None = None

    @property
    def camera(self) -> Camera:
        return Camera(self.numbers[_VIEWMAT].view(4, 4), self.numbers[_K].view(3, 3), self.width, self.height)

    @property
    def row(self) -> Tensor:
        """The timestep as an index [1], int64."""
        return self.numbers[_ROW].long()

    @property
    def background(self) -> Float[Tensor, "3"]:
        return self.numbers[_BACKGROUND]

    def target(self) -> Float[Tensor, "H W 3"]:
        """The picture over the background.

        A capture's picture is `a F + (1 - a) captured_on` for mask a, so the background is exchanged by adding
        `(1 - a) (background - captured_on)`; the colours of the head itself need not be known.
        """
        image = _floats(self.image)
        return image if self.mask is None else image + (1 - _floats(self.mask))[..., None] * self.numbers[_CHANGE]

    @property
    def kind(self) -> tuple[object, ...]:
        """Inputs of one kind can be copied into each other."""
        own = (self.width, self.height, self.image.dtype, None if self.mask is None else self.mask.dtype)
        return own if self.views is None else (*own, *self.views.kind)

    def clone(self) -> Inputs:
        mask, views = None if self.mask is None else self.mask.clone(), None if self.views is None else self.views.clone()
        return replace(self, numbers=self.numbers.clone(), image=self.image.clone(), mask=mask, views=views)

    def copy_(self, other: Inputs) -> None:
        """Take over the values of other inputs of this kind."""
        self.numbers.copy_(other.numbers, non_blocking=True)
        self.image.copy_(other.image, non_blocking=True)
        if self.mask is not None and other.mask is not None:
            self.mask.copy_(other.mask, non_blocking=True)
        if self.views is not None and other.views is not None:
            self.views.copy_(other.views)


class Pictures:
    """Training pictures and masks on a device, decoded and moved once, within a limit of memory: the least recently used leave.

    They are kept in 8 bits wherever that is what they are: files are. On the CPU nothing is kept here: a capture has its own cache.
    """

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self.device, self.limit_bytes, self.bytes_used = device, limit_bytes, 0
        self._kept: OrderedDict[int, tuple[Tensor, Tensor | None]] = OrderedDict()

    def get(self, number: int, frame: Frame) -> tuple[Tensor, Tensor | None]:
        """Picture [H, W, 3] and mask [H, W] of frame `number`, uint8 or float.

        Raises:
            InputError: One has another size than the frame's camera.
        """
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        mask = checked_mask(frame)
        entry = _smallest(checked_image(frame)).to(self.device), None if mask is None else _smallest(mask).to(self.device)
        size = _bytes(entry)
        if size <= self.limit_bytes:
            self._kept[number] = entry
            self.bytes_used += size
            while self.bytes_used > self.limit_bytes:
                self.bytes_used -= _bytes(self._kept.popitem(last=False)[1])
        return entry

    def on_device(self, number: int, frame: Frame) -> Frame:
        """Frame `number` with the picture and mask that are kept here, as floats."""
        mask = None if frame.mask is None else lambda: _floats(cast(Tensor, self.get(number, frame)[1]))
        return replace(frame, image=lambda: _floats(self.get(number, frame)[0]), mask=mask)


def make_inputs(
    number: int, frame: Frame, captured_on: tuple[float, float, float], background: Float[Tensor, "3"], pictures: Pictures | None = None
) -> Inputs:
    """Frame `number` of a capture over `background` (on the CPU), on the device of `pictures`, or on the CPU.

    Raises:
        InputError: The picture or mask has another size than its camera, or the background differs and there is no mask.
    """
    change = background - torch.tensor(captured_on)
    exchanged = bool(change.any())
    image, mask = (checked_image(frame), checked_mask(frame) if exchanged else None) if pictures is None else pictures.get(number, frame)
    if exchanged and mask is None:
        raise InputError(
            f"{describe(frame)}: has no mask, so its background {captured_on} cannot be exchanged; choose that one with --background"
        )
    camera = frame.camera
    numbers = torch.cat(
        [camera.viewmat.cpu().flatten(), camera.K.cpu().flatten(), background, change, torch.tensor([float(frame.timestep)])]
    )
    if pictures is not None:
        if pictures.device.type == "cuda":
            numbers = numbers.pin_memory()  # a copy from other memory may wait for the GPU
        numbers = numbers.to(pictures.device, non_blocking=True)
    return Inputs(numbers, image, mask, camera.width, camera.height)


def _floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _smallest(pixels: Tensor) -> Tensor:
    """8-bit values if nothing is lost by them, else `pixels`."""
    small = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    return small if torch.equal(_floats(small), pixels) else pixels


def _bytes(entry: tuple[Tensor, Tensor | None]) -> int:
    return sum(x.numel() * x.element_size() for x in entry if x is not None)
