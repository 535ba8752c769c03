"""Writing mp4 files."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from gafcore.files import atomic_path


def write_movie(path: str | Path, pictures: Iterable[np.ndarray], fps: float, *, crf: int = 18) -> int:
    """Write pictures, uint8 [H, W, 3] of one size, as H.264 that every browser plays; returns how many.

    H.264 stores colour at half size, so an odd width or height is padded by its last column or row.

    Raises:
        ValueError: No pictures, pictures of different sizes, or a frame rate that is not positive.
    """
    if not fps > 0:
        raise ValueError(f"fps must be > 0, got {fps}")
    n, size = 0, None
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "movflags": "+faststart"}
        for picture in pictures:
            if size is None:
                size = picture.shape
                stream.height, stream.width = (x + x % 2 for x in size[:2])
            if picture.shape != size:
                raise ValueError(f"all pictures of a movie must have one size, got {picture.shape} after {size}")
            padded = np.pad(picture, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")):
                container.mux(packet)
            n += 1
        if n == 0:
            raise ValueError("a movie needs at least one picture")
        for packet in stream.encode():
            container.mux(packet)
    return n
