"""Writing moving pictures: a video that every player shows, or a folder of numbered files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from gafcore.errors import GafError, InputError
from gafcore.files import atomic_folder, atomic_path

_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")


def write_frames(path: str | Path, pictures: Iterable[np.ndarray], *, fps: float = 30.0, crf: int = 16) -> Path:
    """Write pictures as an H.264 video (.mp4, .mov, .mkv) or, for a path without a suffix, as a folder of numbered .png.

    The file or folder appears when it is complete. H.264 in 4:2:0 needs even sizes: odd ones gain a copy of the last row or column.

    Raises:
        InputError: An unknown suffix, no pictures, or pictures of different sizes; or the folder holds anything but numbered pictures.
        GafError: The encoder failed.
    """
    path = Path(path)
    if path.suffix and path.suffix.lower() not in _VIDEO_SUFFIXES:
        raise InputError(f"{path}: write a video ({', '.join(_VIDEO_SUFFIXES)}) or, without a suffix, a folder of pictures")
    if not fps > 0:
        raise InputError(f"fps must be > 0, got {fps}")
    with atomic_path(path) if path.suffix else atomic_folder(path, _foreign) as temporary:
        written = _write_video(temporary, pictures, fps, crf) if path.suffix else _write_folder(temporary, pictures)
        if not written:
            raise InputError(f"{path}: no pictures to write")
    return path


def _write_video(path: Path, pictures: Iterable[np.ndarray], fps: float, crf: int) -> int:
    count = 0
    try:
        with av.open(str(path), "w") as container:
            stream = None
            for picture in _same_size(pictures):
                picture = _even(picture)
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                count += 1
            if stream is not None:
                container.mux(stream.encode())
    except av.FFmpegError as error:
        raise GafError(f"the video could not be written: {error}") from error
    return count


def _write_folder(folder: Path, pictures: Iterable[np.ndarray]) -> int:
    folder.mkdir()
    count = 0
    for picture in _same_size(pictures):
        Image.fromarray(picture).save(folder / f"{count:05d}.png")
        count += 1
    return count


def _foreign(folder: Path) -> list[str]:
    """Everything, unless it is just what `_write_folder` writes: another program's numbers would begin elsewhere."""
    names = sorted(x.name for x in folder.iterdir())
    ours = {f"{i:05d}.png" for i in range(len(names))}
    return [name for name in names if name not in ours]


def _same_size(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    first: tuple[int, ...] | None = None
    for i, picture in enumerate(pictures):
        first = first or picture.shape
        if picture.shape != first:
            raise InputError(
                f"picture {i} is {picture.shape[1]}x{picture.shape[0]}, the first {first[1]}x{first[0]}: all must be of one size"
            )
        yield picture


def _even(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
