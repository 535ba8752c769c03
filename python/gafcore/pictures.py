"""Pictures for people: saving, and sheets with labelled rows and columns. Images are float [H, W, 3] in 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gafcore.files import atomic_path

_LABEL_PX = 18


def to_uint8(image: Float[Tensor, "H W 3"]) -> np.ndarray:
    """8-bit values, rounded to nearest."""
    return (image.detach().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def save_image(path: str | Path, image: Float[Tensor, "H W 3"]) -> None:
    """Write one image; the suffix chooses the format."""
    with atomic_path(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary)


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str) -> None:
    draw.text(at, text, fill=(30, 30, 30), anchor=anchor, font=ImageFont.load_default(size=13))


def _to_height(picture: Image.Image, height: int) -> Image.Image:
    return picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)


def sheet(
    rows: Sequence[Sequence[Float[Tensor, "H W 3"]]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell_px: int | None = None,
) -> Float[Tensor, "H W 3"]:
    """Images in a grid on white, with labels above the columns and left of the rows.

    Cells are as large as the largest image; `cell_px` scales all images to that height.
    """
    pictures = [[Image.fromarray(to_uint8(x)) for x in row] for row in rows]
    if cell_px is not None:
        pictures = [[_to_height(p, cell_px) for p in row] for row in pictures]
    width = max((p.width for row in pictures for p in row), default=1)
    height = max((p.height for row in pictures for p in row), default=1)
    left = (8 + max(round(ImageFont.load_default(size=13).getlength(t)) for t in row_labels)) if row_labels else 0
    top = _LABEL_PX if column_labels else 0
    columns = max((len(row) for row in pictures), default=0)
    canvas = Image.new("RGB", (left + columns * width, top + len(pictures) * height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            canvas.paste(picture, (left + j * width, top + i * height))
        if i < len(row_labels):
            _text(draw, (left - 4, top + (i + 0.5) * height), row_labels[i], "rm")
    for j, label in enumerate(column_labels):
        _text(draw, (left + (j + 0.5) * width, top / 2), label, "mm")
    return torch.from_numpy(np.array(canvas)).float() / 255


def save_sheet(
    path: str | Path,
    rows: Sequence[Sequence[Float[Tensor, "H W 3"]]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell_px: int | None = None,
) -> None:
    """`sheet`, written to `path`."""
    save_image(path, sheet(rows, row_labels, column_labels, cell_px))
