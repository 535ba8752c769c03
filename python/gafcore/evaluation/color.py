"""The camera's colours in an evaluation: a colour correction that was fitted belongs to the pictures, not to the avatar.

Frames that the fit saw have their own gain and offset. A frame that it did not see has none: it is shown with the mean over those that
have, which is the best guess without a look at the picture that is to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.errors import InputError
from gafcore.types import Capture, Frame

ColorMode = Literal["fitted", "mean", "none"]
ColorOf = Callable[[Frame], Float[Tensor, "2 3"]]
NOTES = {
    "fitted": "Colours: training frames are shown with the gain and offset that were fitted to them, all others with their mean.",
    "mean": "Colours: every frame is shown with the mean of the gains and offsets that were fitted.",
    "none": "Colours: a gain and offset were fitted, but are not applied, so the figures hold the camera's changes of colour, too.",
}


def color_of(rows: Float[Tensor, "R 2 3"], capture: Capture, split: str = "train", mode: ColorMode = "fitted") -> ColorOf | None:
    """The correction of each frame, for `evaluate`; None with mode "none".

    Args:
        rows: `FitResult.color_correction`: logarithmic gain and offset a channel, one for all frames or one a timestep.
        capture: The one that was fitted.
        split: The one of its splits that was fitted.
        mode: "fitted": each frame's own where the fit saw it, else the mean; "mean": the mean everywhere.

    Raises:
        InputError: `rows` does not fit the capture, or the capture has no such split.
    """
    if rows.dim() != 3 or rows.shape[1:] != (2, 3) or rows.shape[0] not in (1, len(capture.params)):
        raise InputError(f"the colour correction must be [1 or {len(capture.params)}, 2, 3], got {list(rows.shape)}")
    if mode == "none":
        return None
    if rows.shape[0] == 1:
        return lambda _: rows[0]
    seen = [capture.frames[i] for i in capture.splits.get(split, ())]
    if not seen:
        raise InputError(f"the capture has no frames in split {split!r}, to which the avatar was fitted")
    mean = rows[sorted({f.timestep for f in seen})].mean(0)
    if mode == "mean":
        return lambda _: mean
    own = {(f.timestep, f.camera_index) for f in seen}
    return lambda frame: rows[frame.timestep] if (frame.timestep, frame.camera_index) in own else mean


def stored_color(where: str, info: dict[str, Any], capture: Capture, mode: ColorMode = "fitted") -> ColorOf | None:
    """`color_of` with what `gafcore fit` kept in an avatar's manifest; None where nothing was fitted.

    Args:
        where: The manifest, for messages.
        info: Its "info".
        capture: The one that was fitted.
        mode: As for `color_of`.

    Raises:
        InputError: The manifest's values are not such a correction, or do not fit the capture.
    """
    values = info.get("color_correction")
    if values is None:
        return None
    try:
        rows = torch.tensor(_numbers(values), dtype=torch.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"{where}: 'info.color_correction' must be finite numbers [R, 2, 3]") from None
    if not bool(rows.isfinite().all()):
        raise InputError(f"{where}: 'info.color_correction' must be finite numbers [R, 2, 3]")
    config = info.get("config")
    split = config.get("split", "train") if isinstance(config, dict) else "train"
    try:
        return color_of(rows, capture, split if isinstance(split, str) else "train", mode)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _numbers(values: Any) -> Any:
    """`values` unchanged, known to be lists of lists of numbers: torch takes truth values and text of one digit for numbers, too."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [_numbers(x) for x in values]
    if isinstance(values, bool) or not isinstance(values, int | float):
        raise TypeError
    return values
