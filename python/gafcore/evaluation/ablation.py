"""Rows of an ablation: each is a fit, its figures and a few pictures, kept in a folder, so that none is made twice."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gafcore.avatars import RiggedAvatar, render
from gafcore.captures.splits import keyframes
from gafcore.errors import InputError
from gafcore.evaluation.metrics import Perceptual
from gafcore.evaluation.presets import PriorSources, described, prior_of, why_not
from gafcore.evaluation.sides import SideScores, side_scores
from gafcore.files import read_json, write_json
from gafcore.fitting import Execution, FitConfig, Prior, fit
from gafcore.fitting.checkpoint import FOLDER as CHECKPOINTS
from gafcore.fitting.config import to_json
from gafcore.fitting.data import fingerprint, training_frames
from gafcore.pictures import save_image
from gafcore.types import Capture, Frame

_SETTINGS, _RESULT = "settings.json", "row.json"
_SPLITS = ("train", "novel", "far", "expression")


@dataclass(frozen=True)
class RowSpec:
    """Which fit a row is: a preset, and on how many training frames (all where absent)."""

    preset: str
    n_frames: int | None = None

    @property
    def label(self) -> str:
        return self.preset if self.n_frames is None else f"{self.n_frames} {self.preset}"

    @property
    def folder(self) -> str:
        return self.preset if self.n_frames is None else f"{self.preset}-{self.n_frames}-frames"


@dataclass(frozen=True)
class Row:
    """A row of the table. `scores` is None where it was not run, and `not_run` says why.

    `processor_seconds` is the fit's processor time; None where it was interrupted and went on.
    """

    spec: RowSpec
    scores: SideScores | None = None
    not_run: str | None = None
    processor_seconds: float | None = None
    pictures: Sequence[Float[Tensor, "H W 3"]] = field(default=(), repr=False)


@dataclass(frozen=True)
class Ablation:
    """What all rows share.

    Attributes:
        capture: With a split of novel views.
        config: Of every fit.
        sources: Where priors come from.
        out: Folder whose subfolder "rows" keeps the rows; a row that is there is not fitted again.
        shown: The frames whose renders are a row's pictures.
        execution: Where to fit.
        perceptual: LPIPS, on the device of the fits.
        make: The prior of a preset.
    """

    capture: Capture
    config: FitConfig
    sources: PriorSources
    out: Path
    shown: Sequence[Frame]
    execution: Execution = Execution(device="cpu")  # noqa: RUF009  (frozen)
    perceptual: Perceptual | None = None
    make: Callable[[str, PriorSources], Prior | None] = prior_of

    def row(self, spec: RowSpec) -> Row:
        """The row: read if it is there, fitted if not. An interrupted fit goes on where it stopped.

        Raises:
            InputError: What is there was made with other settings, or is damaged; whatever `why_not` and `fit` refuse.
            Interrupted: As `fit`; a checkpoint is in the row's folder.
        """
        reason = why_not(spec.preset, self.sources)
        if reason is not None:
            return Row(spec, not_run=reason)
        capture = self.capture if spec.n_frames is None else fewer_frames(self.capture, spec.n_frames, self.config.split)
        folder = self.out / "rows" / spec.folder
        settings = json.loads(json.dumps(self._settings(spec, capture)))
        stored = folder / _SETTINGS
        if stored.is_file():
            _check_same(folder, read_json(stored), settings)
        found = _stored(folder, spec, len(self.shown))
        if found is not None:
            return found
        write_json(stored, settings)
        return self._fitted(spec, capture, folder)

    def _fitted(self, spec: RowSpec, capture: Capture, folder: Path) -> Row:
        resume = (folder / CHECKPOINTS / "latest.json").is_file()
        prior = self.make(spec.preset, self.sources)
        start = time.process_time()
        avatar = fit(capture, self.config, prior=prior, out=folder, resume=resume, execution=self.execution).avatar
        seconds = None if resume else time.process_time() - start
        scores = side_scores(avatar, capture, train=self.config.split, perceptual=self.perceptual)
        pictures = [picture(avatar, capture, frame) for frame in self.shown]
        for i, image in enumerate(pictures):
            save_image(folder / _picture_name(i), image)
        write_json(folder / _RESULT, {"processor_seconds": seconds, **asdict(scores)})  # last: with it the row is there
        return Row(spec, scores, None, seconds, pictures)

    def _settings(self, spec: RowSpec, capture: Capture) -> dict[str, Any]:
        train = training_frames(capture, self.config.split)
        held_out = tuple(n for name in ("novel_view", "novel_expression") for n in capture.splits.get(name, ()))
        return {
            "prior": described(spec.preset, self.sources),
            "config": to_json(self.config),
            "capture": fingerprint(capture, train),
            "measured": fingerprint(capture, held_out),
        }


def fewer_frames(capture: Capture, n: int, split: str = "train") -> Capture:
    """The capture with `n` of the split's frames, in the order of time, chosen as in GAF's figure 7; the others are in no split.

    Raises:
        InputError: The split has fewer frames.
    """
    numbers = sorted(training_frames(capture, split), key=lambda i: (capture.frames[i].timestep, i))
    if not 1 <= n <= len(numbers):
        raise InputError(f"split {split!r} has {len(numbers)} frames, so {n} cannot be chosen; name 1 to {len(numbers)}")
    chosen = tuple(numbers[place] for place in keyframes(len(numbers), n))
    return replace(capture, splits={**capture.splits, split: chosen})


def picture(avatar: RiggedAvatar, capture: Capture, frame: Frame) -> Float[Tensor, "H W 3"]:
    """The avatar as a frame shows it, on the capture's background, on the CPU."""
    with torch.no_grad():
        image = render(avatar, [frame.camera], avatar.params[frame.timestep], avatar.means.new_tensor(capture.background)).image
    return image[0].clamp(0, 1).cpu()


def _picture_name(i: int) -> str:
    return f"view_{i}.png"


def _check_same(folder: Path, stored: Any, given: dict[str, Any]) -> None:
    if not isinstance(stored, dict):
        raise InputError(f"{folder / _SETTINGS}: must be an object, got {type(stored).__name__}; remove {folder} to fit the row again")
    different = []
    for group, values in given.items():
        others = stored.get(group)
        others = others if isinstance(others, dict) else {}
        different += [f"{group}.{name}" for name in sorted({*values, *others}) if values.get(name) != others.get(name)]
    if different:
        raise InputError(
            f"{folder}: holds a row that was made with other settings ({', '.join(different[:4])}); "
            "ask for the same, name another --out, or remove the folder to fit the row again"
        )


def _stored(folder: Path, spec: RowSpec, n_pictures: int) -> Row | None:
    """The finished row in a folder; None where something of it is missing."""
    files = [folder / _picture_name(i) for i in range(n_pictures)]
    path = folder / _RESULT
    if not path.is_file() or not all(file.is_file() for file in files):
        return None
    told = read_json(path)
    try:
        scores = SideScores(**{split: {name: _finite(x) for name, x in told[split].items()} for split in _SPLITS})
        seconds = None if told["processor_seconds"] is None else _finite(told["processor_seconds"])
        return Row(spec, scores, None, seconds, [_read_picture(file) for file in files])
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a row of this version ({type(error).__name__}: {error}); remove {folder} to fit it again") from None


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _read_picture(path: Path) -> Float[Tensor, "H W 3"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
