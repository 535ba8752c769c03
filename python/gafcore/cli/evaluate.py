"""`gafcore eval`: how well an avatar matches a capture's frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gafcore import captures
from gafcore.avatars import load_avatar
from gafcore.avatars.storage import read_manifest
from gafcore.cli.flags import PathArgument
from gafcore.evaluation import Evaluation, evaluate
from gafcore.files import check_output_folder, read_json
from gafcore.fitting import load_lpips


def lines(evaluation: Evaluation) -> list[str]:
    """One line a split: every mean figure."""
    return [f"{split}: " + ", ".join(f"{k} {v:.4g}" for k, v in evaluation.mean(split).items()) for split in evaluation.splits]


def fit_notes(avatar: Path) -> tuple[str, ...]:
    """What the avatar's manifest says that a reader of the figures should know about its fit."""
    info = read_manifest(avatar).get("info")
    info = info if isinstance(info, dict) else {}
    notes = info.get("notes")
    said = [f"Fit: {note}" for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    if info.get("color_correction") is not None:
        said.append("Fit: a colour correction was fitted; it is not applied here, so the figures hold the camera's changes of colour, too.")
    return tuple(said)


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

    def run(self) -> None:
        check_output_folder(self.out)
        avatar = load_avatar(self.avatar)
        perceptual = load_lpips(self.lpips_weights) if self.lpips_weights else None
        history = self.avatar / "history.json"
        result = evaluate(
            avatar,
            captures.read(self.capture),
            self.splits or None,
            perceptual=perceptual,
            max_frames=self.max_frames,
            samples=self.samples,
        )
        result = replace(result, notes=(*fit_notes(self.avatar), *result.notes))
        report = result.write(self.out, read_json(history) if history.exists() else None)
        print("\n".join(lines(result)))
        print(f"wrote {report}")
