"""`gafcore eval`: how well an avatar matches a capture's frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gafcore import captures
from gafcore.avatars import load_avatar
from gafcore.avatars.storage import read_manifest
from gafcore.cli.flags import PathArgument
from gafcore.devices import DeviceName, resolve
from gafcore.errors import InputError
from gafcore.evaluation import Evaluation, evaluate, stored_color
from gafcore.evaluation.color import NOTES, ColorMode
from gafcore.files import check_output_folder, read_json
from gafcore.fitting import load_lpips
from gafcore.fitting.state import HISTORY


def lines(evaluation: Evaluation) -> list[str]:
    """One line a split: every mean figure."""
    return [f"{split}: " + ", ".join(f"{k} {v:.4g}" for k, v in evaluation.mean(split).items()) for split in evaluation.splits]


def fit_notes(info: dict[str, Any]) -> tuple[str, ...]:
    """What an avatar's manifest says under "info" that a reader of the figures should know about its fit."""
    notes = info.get("notes")
    return tuple(f"Fit: {note}" for note in notes if isinstance(note, str)) if isinstance(notes, list) else ()


def read_history(path: Path) -> dict[str, list[float]] | None:
    """The course of the fit that `gafcore fit` wrote; None where it is absent.

    Raises:
        InputError: It is not such a file; the message names the column.
    """
    if not path.exists():
        return None
    history = read_json(path)
    rows: Any = history.get("iteration") if isinstance(history, dict) else None
    for name in HISTORY:
        column: Any = history.get(name) if isinstance(history, dict) else None
        numbers = isinstance(column, list) and all(isinstance(x, int | float) and abs(x) < 1e300 for x in column)  # NaN is not below either
        if not numbers or len(column) != len(rows):
            raise InputError(
                f"{path}: {name!r} must be a list of finite numbers, as long as the others; remove the file to go without plots"
            )
    return history


@dataclass(frozen=True)
class Eval:
    """Measure an avatar on a capture: L1, PSNR, SSIM (and LPIPS with weights) a split, on the full picture and inside the head mask."""

    avatar: PathArgument
    """Folder of an avatar, as `gafcore fit` writes it."""
    capture: PathArgument
    """Folder of the capture it was fitted to."""
    out: Path
    """Folder for evaluation.json and report.html."""
    splits: tuple[str, ...] = ()
    """Splits to measure; all of the capture's by default."""
    max_frames: int | None = None
    """At most so many frames a split, evenly spaced."""
    samples: int = 4
    """Frames a split shown as pictures in the report."""
    lpips_weights: Path | None = None
    """File or folder with the weights of VGG16 and LPIPS; without it LPIPS is not measured."""
    color: ColorMode = "fitted"
    """Of an avatar with a colour correction. fitted: training frames with their own, all others with the mean;
    mean: all with the mean; none: the avatar's own colours."""
    device: DeviceName = "auto"
    """Where to render and compare: cpu, cuda, or auto: the GPU where there is one and gafcore was compiled with CUDA."""

    def run(self) -> None:
        check_output_folder(self.out)
        device = resolve(self.device)
        avatar, info = load_avatar(self.avatar, device=device), read_manifest(self.avatar).get("info")
        info = info if isinstance(info, dict) else {}
        history = read_history(self.avatar / "history.json")
        perceptual = load_lpips(self.lpips_weights).to(device) if self.lpips_weights else None
        capture = captures.read(self.capture)
        result = evaluate(
            avatar,
            capture,
            self.splits or None,
            perceptual=perceptual,
            color=stored_color(str(self.avatar / "avatar.json"), info, capture, self.color),
            max_frames=self.max_frames,
            samples=self.samples,
        )
        colors = () if info.get("color_correction") is None else (NOTES[self.color],)
        result = replace(result, notes=(*fit_notes(info), *colors, *result.notes))
        report = result.write(self.out, history)
        print("\n".join(lines(result)))
        print(f"wrote {report}")
