"""Measuring an avatar on the splits of a capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars import RiggedAvatar, render
from gafcore.avatars.frames import checked_image, checked_mask
from gafcore.errors import InputError
from gafcore.evaluation.color import ColorOf
from gafcore.evaluation.metrics import Perceptual, compare, mean_values
from gafcore.evaluation.report import write_report
from gafcore.fitting.color import corrected
from gafcore.progress import track
from gafcore.types import Capture, Frame


@dataclass(frozen=True)
class FrameScore:
    """The figures of one frame, by the names that `compare` gives them."""

    split: str
    frame: int
    timestep: int
    camera: str
    values: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """The pictures of one row of the report. `given` is what fitting saw at the same moment, or at the nearest one that it saw."""

    split: str
    label: str
    given: Float[Tensor, "H W 3"]
    truth: Float[Tensor, "H W 3"]
    image: Float[Tensor, "H W 3"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of all frames, and a few frames as pictures."""

    scores: tuple[FrameScore, ...]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    info: dict[str, object] = field(default_factory=dict)
    sheets: dict[str, Float[Tensor, "H W 3"]] = field(default_factory=dict)  # further pictures for the report, by their headings

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(score.split for score in self.scores))

    def mean(self, split: str) -> dict[str, float]:
        """Mean figures over a split's frames."""
        return mean_values([score.values for score in self.scores if score.split == split])

    def by_camera(self, split: str) -> dict[str, dict[str, float]]:
        """Mean figures of each camera of a split: GAF's "novel expression" is reported with and without the training camera."""
        cameras = dict.fromkeys(score.camera for score in self.scores if score.split == split)
        chosen = {c: [s.values for s in self.scores if s.split == split and s.camera == c] for c in cameras}
        return {camera: mean_values(rows) for camera, rows in chosen.items()}

    def write(self, out: str | Path, history: dict[str, list[float]] | None = None) -> Path:
        """Write evaluation.json and report.html into `out`; `history` (of a `FitResult`) is plotted.

        Returns:
            The report's path.
        """
        return write_report(self, Path(out), history)


def evaluate(
    avatar: RiggedAvatar,
    capture: Capture,
    splits: Sequence[str] | None = None,
    *,
    perceptual: Perceptual | None = None,
    color: ColorOf | None = None,
    max_frames: int | None = None,
    samples: int = 4,
    given_split: str = "train",
    progress: bool = True,
) -> Evaluation:
    """Render the avatar as each frame shows it and compare.

    Args:
        avatar: Its rig parameters pose it; it must have been fitted to this capture's timesteps. Renders are compared where it is.
        capture: Pictures, cameras, splits, and the background behind the renders.
        splits: Which splits; all that have frames by default.
        perceptual: LPIPS (`gafcore.fitting.load_lpips`), on the avatar's device.
        color: The gain and offset with which a camera shows the avatar in a frame (`gafcore.evaluation.color_of`), where one was fitted.
        max_frames: At most so many frames a split, evenly spaced.
        samples: Frames a split kept as pictures.
        given_split: Where the "input" pictures of the samples come from.
        progress: Show progress on stderr.

    Raises:
        InputError: Unknown split, `max_frames` below 1, negative `samples`, or the avatar has other timesteps than the capture.
    """
    if (max_frames is not None and max_frames < 1) or samples < 0:
        raise InputError(f"max_frames must be at least 1 and samples at least 0, got {max_frames} and {samples}")
    names = _chosen_splits(capture, splits)
    if len(avatar.params) != len(capture.params):
        raise InputError(f"the avatar has {len(avatar.params)} timesteps, the capture {len(capture.params)}: fitted to another capture?")
    background = avatar.means.new_tensor(capture.background)
    scores, kept = [], []
    for name in names:
        numbers = _thinned(capture.splits[name], max_frames)
        shown = set(_thinned(numbers, samples))
        for number in track(numbers, f"evaluate {name}") if progress else numbers:
            frame = capture.frames[number]
            with torch.no_grad():
                view = render(avatar, [frame.camera], avatar.params[frame.timestep], background)
                image = corrected(view, background, None if color is None else color(frame).to(background))[0]
                truth, mask = checked_image(frame), checked_mask(frame)
                where = image.device
                values = compare(image, truth.to(where), None if mask is None else mask.to(where), perceptual)
            scores.append(FrameScore(name, number, frame.timestep, camera_name(frame), values))
            if number in shown:
                given = nearest_frame(capture, given_split, frame)
                label = f"timestep {frame.timestep}, camera {camera_name(frame)}: {values['psnr']:.1f} dB"
                kept.append(Sample(name, label, given.image(), truth, image.clamp(0, 1).cpu()))
    notes = () if perceptual is not None else ("LPIPS was not measured: no weights given (--lpips-weights).",)
    return Evaluation(tuple(scores), tuple(kept), notes, {"n_gaussians": len(avatar), "rig": avatar.rig.name})


def camera_name(frame: Frame) -> str:
    return frame.camera_id or str(frame.camera_index)


def nearest_frame(capture: Capture, split: str, frame: Frame) -> Frame:
    """The frame of `split` nearest in time to `frame`; `frame` itself where the split is absent."""
    candidates = [capture.frames[i] for i in capture.splits.get(split, ())]
    return min(candidates, key=lambda f: abs(f.timestep - frame.timestep), default=frame)


def _chosen_splits(capture: Capture, splits: Sequence[str] | None) -> list[str]:
    available = [name for name, numbers in capture.splits.items() if numbers]
    for name in splits or ():
        if name not in available:
            raise InputError(f"the capture has no frames in split {name!r}; it has {available}")
    return list(splits) if splits else available


def _thinned(numbers: Sequence[int], limit: int | None) -> list[int]:
    if limit is None or len(numbers) <= limit:
        return list(numbers)
    places = torch.linspace(0, len(numbers) - 1, limit).round().long().tolist()
    return [numbers[i] for i in dict.fromkeys(places)]
