"""Frames from a video file through PyAV: counted in one pass, decoded in order, found again by seeking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from gafcore.captures.cache import ImageCache
from gafcore.errors import InputError

DEFAULT_FPS = 25.0  # for streams that name neither a frame rate nor time stamps


def orientation(matrix: np.ndarray) -> tuple[bool, int]:
    """A display matrix (int32 [9], 16.16 fixed point, row vectors) as `(flip left to right first, then quarter turns counter-clockwise)`.

    Raises:
        ValueError: The matrix is not a multiple of a quarter turn, with or without a mirror.
    """
    a, b, c, d = (int(np.sign(matrix[i])) if abs(int(matrix[i])) > 0x8000 else 0 for i in (0, 1, 3, 4))
    flip = a * d - b * c < 0
    if flip:
        a, b = -a, -b
    turns = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}.get((a, b, c, d))
    if turns is None:
        raise ValueError(f"the display matrix {matrix.tolist()} is not a quarter turn")
    return flip, turns


def upright(pixels: np.ndarray, flip: bool, turns: int) -> np.ndarray:
    """[H, W, C] after the orientation that `orientation` returned."""
    turned = np.rot90(pixels[:, ::-1] if flip else pixels, turns)
    return np.ascontiguousarray(turned)


class VideoSource:
    """Decodes on the caller's thread, one frame at a time, under a lock; PyAV's own threads work ahead.

    A first pass over the file (without colour conversion beyond what the cache holds) yields the exact frame count and time stamps:
    containers lie about both.
    """

    def __init__(self, path: Path, max_frames: int | None, cache: ImageCache) -> None:
        self._path, self._cache, self._lock = path, cache, threading.Lock()
        self._decoder: Iterator[av.VideoFrame] | None = None
        self._container: av.container.InputContainer | None = None
        self._next = 0
        self._pts: list[int | None] = []
        self._scan(max_frames)

    def _scan(self, max_frames: int | None) -> None:
        for i, frame in enumerate(self._frames_from_start()):
            if i == 0:
                self.has_alpha = _has_alpha(frame)
                self._orientation = self._orientation_of(frame)
                pixels = self._convert(0, frame)
                self.size, self._coded, frame_bytes = pixels.shape[:2], (frame.width, frame.height), pixels.nbytes
                self._cache.put(0, pixels)
            elif (frame.width, frame.height) != self._coded:
                sizes = f"{frame.width}x{frame.height}, but frame 0 is {self._coded[0]}x{self._coded[1]}"
                raise InputError(f"{self._path}: frame {i} is {sizes}; all frames need one size")
            elif self._cache.has_room(frame_bytes):
                self._cache.put(i, self._convert(i, frame))
            self._pts.append(frame.pts)
            if max_frames is not None and i + 1 >= max_frames:
                break
        if not self._pts:
            raise InputError(f"{self._path}: the video has no frames")
        stream = self._container.streams.video[0]
        self.nominal_fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        self.times_s = self._times(stream)
        self._close()

    def _times(self, stream: av.VideoStream) -> np.ndarray:
        """Seconds from the first frame; an even rate where stamps are absent or do not increase."""
        even = np.arange(len(self._pts)) / self.nominal_fps
        if any(p is None for p in self._pts) or stream.time_base is None:
            return even
        times = (np.array(self._pts, dtype=np.float64) - self._pts[0]) * float(stream.time_base)
        return times if (np.diff(times) > 0).all() else even

    def pixels(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3], or [H, W, 4] when the stream has alpha, upright."""
        return self._cache.get(i, lambda: self._decode(i))

    def _decode(self, i: int) -> np.ndarray:
        with self._lock:
            if self._decoder is None or self._next > i or i - self._next > 64:
                self._seek(i)
            for frame in self._decoder:
                number, self._next = self._next, self._next + 1
                if number == i:
                    return self._convert(i, frame)
            raise InputError(f"{self._path}: frame {i} cannot be decoded again")

    def _seek(self, i: int) -> None:
        """Stand at or before frame `i`: at the key frame before it where stamps allow, else at the start."""
        self._decoder, self._next = self._frames_from_start(), 0
        known = {pts: n for n, pts in enumerate(self._pts)}
        if i == 0 or None in known or len(known) != len(self._pts):
            return
        self._container.seek(self._pts[i], stream=self._container.streams.video[0])
        frames = self._decoded(first=None)
        landed = next(frames, None)
        number = known.get(landed.pts, len(self._pts)) if landed is not None else len(self._pts)
        if number > i:  # the container has no usable index
            self._decoder = self._frames_from_start()
            return
        self._decoder, self._next = _chain(landed, frames), number

    def _frames_from_start(self) -> Iterator[av.VideoFrame]:
        self._close()
        try:
            self._container = av.open(str(self._path))
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{self._path}: not readable as a video ({_reason(error)})") from None
        if not self._container.streams.video:
            raise InputError(f"{self._path}: no video stream in this file")
        self._container.streams.video[0].thread_type = "AUTO"
        return self._decoded(first=0)

    def _decoded(self, first: int | None) -> Iterator[av.VideoFrame]:
        count = 0
        try:
            for frame in self._container.decode(self._container.streams.video[0]):
                if frame.is_corrupt:
                    raise InputError(f"{self._path}: frame {self._number(first, count)} is corrupt")
                yield frame
                count += 1
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{self._path}: frame {self._number(first, count)} cannot be decoded ({_reason(error)})") from None

    def _number(self, first: int | None, count: int) -> int:
        return self._next if first is None else first + count

    def _convert(self, i: int, frame: av.VideoFrame) -> np.ndarray:
        try:
            pixels = frame.to_ndarray(format="rgba" if self.has_alpha else "rgb24")
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{self._path}: frame {i} cannot be converted to RGB ({_reason(error)})") from None
        return upright(pixels, *self._orientation)

    def _orientation_of(self, frame: av.VideoFrame) -> tuple[bool, int]:
        side_data = frame.side_data.get("DISPLAYMATRIX")
        if side_data is None:
            return False, 0
        try:
            return orientation(np.frombuffer(bytes(side_data), dtype=np.int32))
        except ValueError as error:
            raise InputError(f"{self._path}: frame 0: {error}") from None

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = self._decoder = None


def _chain(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from rest


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
