"""Clips to track: a video file, a folder of pictures or a single picture, decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gafcore.captures.cache import ImageCache
from gafcore.captures.pictures_source import PICTURE_SUFFIXES, PictureSource, natural_key, on_white
from gafcore.captures.video_source import VideoSource
from gafcore.errors import InputError, MissingError

DEFAULT_CACHE_BYTES = 512_000_000
FOLDER_FPS = 25.0  # folders and single pictures carry no clock


@dataclass(frozen=True)
class Clip:
    """Frames of one size in order of time. Rotation metadata is applied, so pictures are upright; transparency is composited on white.

    Attributes:
        name: File or folder name.
        width, height: Pixels, after rotation.
        times_s: [N] seconds from the first frame, increasing; not evenly spaced where the frame rate varies.
        fps: Mean frame rate over the clip.
        has_alpha: Whether the source has an alpha channel (`alpha(i)` gives it).
    """

    name: str
    width: int
    height: int
    times_s: np.ndarray = field(repr=False, compare=False)
    fps: float
    has_alpha: bool
    source: VideoSource | PictureSource = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.times_s)

    def image(self, i: int) -> np.ndarray:
        """Frame `i` as uint8 [H, W, 3] RGB. Cheap in order; out of order it may have to decode from the key frame before.

        Raises:
            IndexError: No such frame.
            InputError: The frame cannot be decoded; the message names file and frame.
        """
        rgba = self._pixels(i)
        return rgba if rgba.shape[2] == 3 else on_white(rgba)

    def alpha(self, i: int) -> np.ndarray | None:
        """The alpha channel of frame `i` as uint8 [H, W], or None where the source has none."""
        return np.ascontiguousarray(self._pixels(i)[:, :, 3]) if self.has_alpha else None

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.image(i) for i in range(len(self)))

    def _pixels(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name} has frames 0..{len(self) - 1}, got {i}")
        return self.source.pixels(i)


def read(path: str | Path, *, max_frames: int | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Clip:
    """Open a video file, a folder of pictures (in natural order: 2 before 10) or a single picture.

    Videos are scanned once to count frames and read time stamps; what fits in `cache_bytes` is kept from that pass.

    Raises:
        MissingError: Nothing at `path`.
        InputError: Not a video or picture, no frames, frames of different sizes, or a corrupt frame; the message names file and frame.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames must be >= 1, got {max_frames}")
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder")
    cache = ImageCache(cache_bytes)
    source = _open(path, max_frames, cache)
    height, width = source.size
    return Clip(path.name, width, height, source.times_s, _mean_fps(source.times_s, source.nominal_fps), source.has_alpha, source)


def _open(path: Path, max_frames: int | None, cache: ImageCache) -> VideoSource | PictureSource:
    if path.is_dir():
        return PictureSource(_pictures_in(path), max_frames, FOLDER_FPS, cache)
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSource([path], max_frames, FOLDER_FPS, cache)
    return VideoSource(path, max_frames, cache)


def _pictures_in(folder: Path) -> list[Path]:
    files = [f for f in folder.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES and not f.name.startswith(".") and f.is_file()]
    if not files:
        raise InputError(f"{folder}: no pictures in this folder (looked for {', '.join(sorted(PICTURE_SUFFIXES))})")
    return sorted(files, key=lambda f: natural_key(f.name))


def _mean_fps(times_s: np.ndarray, nominal: float) -> float:
    span = float(times_s[-1] - times_s[0])
    return (len(times_s) - 1) / span if span > 0 else nominal
