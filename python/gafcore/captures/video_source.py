"""Frames from a video file through PyAV: counted in one pass, decoded in order, found again by seeking."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from gafcore.captures.cache import ImageCache
from gafcore.errors import InputError

DEFAULT_FPS = 25.0  # for streams that name neither a frame rate nor time stamps
_NEAR_FRAMES = 32  # ahead: decoding on is cheaper than seeking


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


class _Stream:
    """An open file: frames one after the other from wherever it stands. Errors name the file and the frame."""

    def __init__(self, path: Path) -> None:
        self._path, self.next = path, 0  # `next` numbers the frame that comes next
        try:
            self.container = av.open(str(path))
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{path}: not readable as a video ({_reason(error)})") from None
        if not self.container.streams.video:
            self.close()
            raise InputError(f"{path}: no video stream in this file")
        self.video = self.container.streams.video[0]
        self.video.thread_type = "AUTO"
        self._frames = self.container.decode(self.video)
        self._pushed_back: av.VideoFrame | None = None

    def read(self) -> av.VideoFrame | None:
        """The next frame, or None at the end."""
        frame, self._pushed_back = self._pushed_back or self._decode(), None
        self.next += 1
        return frame

    def seek(self, pts: int, number_of: dict[int, int]) -> bool:
        """Move to the key frame at or before `pts`; False where the file has no usable index, and then it stands nowhere."""
        try:
            self.container.seek(pts, stream=self.video)
        except av.error.FFmpegError:
            return False
        self._frames = self.container.decode(self.video)
        landed = self._decode()
        if landed is None or landed.pts is None or number_of.get(landed.pts, len(number_of)) > number_of[pts]:
            return False
        self._pushed_back, self.next = landed, number_of[landed.pts]
        return True

    def close(self) -> None:
        self.container.close()

    def _decode(self) -> av.VideoFrame | None:
        try:
            frame = next(self._frames, None)
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{self._path}: frame {self.next} cannot be decoded ({_reason(error)})") from None
        if frame is not None and frame.is_corrupt:
            raise InputError(f"{self._path}: frame {self.next} is corrupt")
        return frame


class VideoSource:
    """Decodes on the caller's thread, one frame at a time, under a lock; PyAV's own threads work ahead.

    A first pass over the file (without colour conversion beyond what the cache holds) yields the exact frame count and time stamps:
    containers lie about both.
    """

    def __init__(self, path: Path, max_frames: int | None, cache: ImageCache) -> None:
        self._path, self._cache, self._lock = path, cache, threading.Lock()
        self._stream: _Stream | None = None
        self._pts: list[int | None] = []
        stream = _Stream(path)
        try:
            self._scan(stream, max_frames)
            self.nominal_fps = float(stream.video.average_rate or stream.video.guessed_rate or DEFAULT_FPS)
            self.times_s = self._times(stream.video.time_base)
        finally:
            stream.close()

    def pixels(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3], or [H, W, 4] when the stream has alpha, upright."""
        return self._cache.get(i, lambda: self._decode(i))

    def _scan(self, stream: _Stream, max_frames: int | None) -> None:
        first = stream.read()
        if first is None:
            raise InputError(f"{self._path}: the video has no frames")
        self.has_alpha = any(component.is_alpha for component in first.format.components)
        self._orientation = self._orientation_of(first)
        pixels = self._convert(0, first)
        self.size = pixels.shape[:2]
        self._cache.put(0, pixels)
        self._pts.append(first.pts)
        while max_frames is None or len(self._pts) < max_frames:
            frame = stream.read()
            if frame is None:
                return
            i = len(self._pts)
            if (frame.width, frame.height) != (first.width, first.height):
                sizes = f"{frame.width}x{frame.height}, but frame 0 is {first.width}x{first.height}"
                raise InputError(f"{self._path}: frame {i} is {sizes}; all frames need one size")
            if self._cache.has_room(pixels.nbytes):
                self._cache.put(i, self._convert(i, frame))
            self._pts.append(frame.pts)

    def _times(self, time_base: Fraction | None) -> np.ndarray:
        """Seconds from the first frame; an even rate where stamps are absent or do not increase."""
        known = [pts for pts in self._pts if pts is not None]
        if time_base is not None and len(known) == len(self._pts):
            times = (np.array(known, dtype=np.float64) - known[0]) * float(time_base)
            if (np.diff(times) > 0).all():
                return times
        return np.arange(len(self._pts)) / self.nominal_fps

    def _decode(self, i: int) -> np.ndarray:
        with self._lock:
            stream = self._at_or_before(i)
            frame = stream.read()
            while frame is not None and stream.next <= i:
                frame = stream.read()
            if frame is None:
                raise InputError(f"{self._path}: frame {i} cannot be decoded again")
            return self._convert(i, frame)

    def _at_or_before(self, i: int) -> _Stream:
        """Go on from where the last call stopped when frame `i` is near ahead, else seek, else start again."""
        if self._stream is not None and self._stream.next <= i <= self._stream.next + _NEAR_FRAMES:
            return self._stream
        if self._stream is not None:
            self._stream.close()
        self._stream = _Stream(self._path)
        number_of = {pts: n for n, pts in enumerate(self._pts) if pts is not None}
        pts = self._pts[i]
        if i > _NEAR_FRAMES and pts is not None and len(number_of) == len(self._pts) and not self._stream.seek(pts, number_of):
            self._stream.close()
            self._stream = _Stream(self._path)
        return self._stream

    def _convert(self, i: int, frame: av.VideoFrame) -> np.ndarray:
        try:
            pixels = frame.to_ndarray(format="rgba" if self.has_alpha else "rgb24")
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{self._path}: frame {i} cannot be converted to RGB ({_reason(error)})") from None
        return upright(pixels, *self._orientation)

    def _orientation_of(self, frame: av.VideoFrame) -> tuple[bool, int]:
        side_data: Any = frame.side_data.get("DISPLAYMATRIX")
        if side_data is None:
            return False, 0
        try:
            return orientation(np.frombuffer(bytes(side_data), dtype=np.int32))
        except ValueError as error:
            raise InputError(f"{self._path}: frame 0: {error}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
