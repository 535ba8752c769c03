"""Frames from picture files: one file a frame, or one file with several pages (animated PNG or WebP, TIFF)."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from gafcore.captures.cache import ImageCache
from gafcore.errors import InputError

# What Pillow raises on damaged files, by format.
BROKEN_PICTURE = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, TypeError, Image.DecompressionBombError)
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that orders numbers by value: frame_2 comes before frame_10."""
    return [(0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"(\d+)", name) if part]


def to_rgb_or_rgba(image: Image.Image) -> np.ndarray:
    """Any PIL mode as uint8 [H, W, 3], or [H, W, 4] when it carries transparency. 16-bit and float pictures are scaled, not clipped.

    Raises:
        ValueError: A floating-point picture with values outside 0..1.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit greyscale; PIL's own conversion would clip at 255
        grey = np.asarray(image, dtype=np.int64).clip(0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("floating-point pictures must hold values in 0..1")
        return np.repeat((values * 255 + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
    transparent = "A" in image.getbands() or "transparency" in image.info
    return np.array(image.convert("RGBA" if transparent else "RGB"))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] composited on white, uint8 [H, W, 3]."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    return ((rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


class PictureSource:
    """Pictures as frames at an even rate. All must have one size; sizes are read from the headers at once, pixels later."""

    def __init__(self, files: list[Path], max_frames: int | None, fps: float, cache: ImageCache) -> None:
        self._cache = cache
        self._pages = [(file, page) for file in files[:max_frames] for page in range(_page_count(file))][:max_frames]
        first = self._decode(0)
        self.size = first.shape[:2]
        self.has_alpha = first.shape[2] == 4
        self.nominal_fps = fps
        self.times_s = np.arange(len(self._pages)) / fps
        for i, (file, page) in enumerate(self._pages):
            if page == 0:
                self._check_header(i, file)

    def pixels(self, i: int) -> np.ndarray:
        return self._cache.get(i, lambda: self._checked(i))

    def _checked(self, i: int) -> np.ndarray:
        pixels = self._decode(i)
        if pixels.shape[:2] != self.size:
            raise InputError(self._size_message(i, pixels.shape[1], pixels.shape[0]))
        if self.has_alpha and pixels.shape[2] == 3:
            return np.concatenate([pixels, np.full_like(pixels[:, :, :1], 255)], axis=2)
        return pixels if self.has_alpha or pixels.shape[2] == 3 else on_white(pixels)

    def _decode(self, i: int) -> np.ndarray:
        file, page = self._pages[i]
        try:
            with Image.open(file) as image:
                image.seek(page)
                return to_rgb_or_rgba(image)
        except BROKEN_PICTURE as error:
            raise InputError(f"{file}: frame {i} cannot be decoded ({error})") from None

    def _check_header(self, i: int, file: Path) -> None:
        """Without decoding, and so before orientation metadata is known: sides may be swapped here, `_checked` looks again."""
        with Image.open(file) as image:
            width, height = image.size
        if {width, height} != set(self.size):
            raise InputError(self._size_message(i, width, height))

    def _size_message(self, i: int, width: int, height: int) -> str:
        return f"{self._pages[i][0]}: frame {i} is {width}x{height}, but frame 0 is {self.size[1]}x{self.size[0]}; all frames need one size"


def _page_count(file: Path) -> int:
    try:
        with Image.open(file) as image:
            return sum(1 for _ in ImageSequence.Iterator(image)) if getattr(image, "is_animated", False) else 1
    except BROKEN_PICTURE as error:
        raise InputError(f"{file}: not readable as a picture ({error})") from None
