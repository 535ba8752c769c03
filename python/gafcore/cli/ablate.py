"""`gafcore ablate`: the same fit with one prior after the other, as in GAF's table 3, or on fewer and fewer frames, as in its figure 7."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gafcore import captures
from gafcore.cli.flags import Flat, PathArgument
from gafcore.devices import resolve
from gafcore.errors import InputError
from gafcore.evaluation.ablation import Ablation, Row, RowSpec, fewer_frames
from gafcore.evaluation.ablation_report import row_line, to_markdown, write_ablation
from gafcore.evaluation.presets import TABLE_3, PriorSources, check_presets, why_not
from gafcore.evaluation.sides import frames_around
from gafcore.files import check_output_folder
from gafcore.fitting import Execution, FitConfig, load_lpips
from gafcore.types import Capture

_WITHOUT_AND_WITH = ("none", "full")
_NO_LPIPS = "LPIPS was not measured: no weights given (--lpips-weights)."


@dataclass(frozen=True)
class Ablate:
    """Fit the same capture with different priors and one seed; write a table and a picture row for each.

    Rows that are in the output folder already are not fitted again, and an interrupted fit goes on: run the same command once more.
    A row that needs weights which were not given is left out, and the table says what it needs.
    """

    capture: PathArgument
    """Folder of a capture whose split "novel_view" holds cameras that the fit does not see (`gafcore synth` makes such)."""
    out: Path
    """Folder for ablation.json, .md (the table) and .png (with --frames: frames.*, and the plot frames.svg), and for the rows' avatars."""
    presets: tuple[str, ...] | None = None
    """Which rows: none, pretrained-sd, personalised-sd, sds, pose, no-upsampler, full (the default: table 3), render, refined, regression.
    With --frames the default is none and full."""
    frames: str | None = None
    """Numbers of training frames, as 56,40,24,16,8,1: every preset is fitted to so many frames, spread evenly over the training split."""
    sources: Flat[PriorSources] = field(default_factory=PriorSources)
    execution: Flat[Execution] = field(default_factory=Execution)
    config: Flat[FitConfig] = field(default_factory=lambda: FitConfig(iterations=1000))

    def run(self) -> None:
        counts = None if self.frames is None else parse_frames(self.frames)
        presets = self.presets if self.presets is not None else TABLE_3 if counts is None else _WITHOUT_AND_WITH
        check_presets(presets)
        check_output_folder(self.out)
        device = resolve(self.execution.device)
        perceptual = None if self.config.lpips_weights is None else load_lpips(self.config.lpips_weights).to(device)
        capture = captures.read(self.capture)
        if not capture.splits.get("novel_view"):
            raise InputError(f"{self.capture}: has no frames in split 'novel_view', so the sides cannot be measured")
        specs = [RowSpec(name, n) for n in (counts or (None,)) for name in presets]
        _check_all(specs, capture, self.sources, self.config.split)
        study = Ablation(capture, self.config, self.sources, self.out, frames_around(capture), self.execution, perceptual)
        notes, stem = [] if perceptual is not None else [_NO_LPIPS], "ablation" if counts is None else "frames"
        rows: list[Row] = []
        for spec in specs:
            rows.append(study.row(spec))
            print(row_line(rows[-1]))
            write_ablation(self.out, stem, rows, study.shown, notes)  # after each, so that a stopped study has what there is
        print("\n" + to_markdown(rows, notes) + f"wrote {self.out}")


def parse_frames(text: str) -> list[int]:
    """The numbers in "56,40,8".

    Raises:
        InputError: They are no positive whole numbers, or one is there twice.
    """
    counts = []
    for part in (p.strip() for p in text.split(",")):
        if not (part.isascii() and part.isdigit()) or len(part) > 9 or int(part) < 1:
            raise InputError(f"--frames must be whole numbers from 1 on, separated by commas, as 56,40,8,1; got {part!r} in {text!r}")
        counts.append(int(part))
    if len(set(counts)) < len(counts):
        raise InputError(f"--frames names {sorted({n for n in counts if counts.count(n) > 1})} twice in {text!r}; name each number once")
    return counts


def _check_all(specs: list[RowSpec], capture: Capture, sources: PriorSources, split: str) -> None:
    """Find what is wrong with the last row before the first one is fitted.

    Raises:
        InputError: A number of frames is too large, or what was given for a prior is of another kind than it must be.
    """
    for spec in specs:
        if spec.n_frames is not None:
            fewer_frames(capture, spec.n_frames, split)
    reasons = {name: why_not(name, sources) for name in dict.fromkeys(spec.preset for spec in specs)}
    if all(reasons.values()):
        raise InputError("none of the rows can be run: " + "; ".join(f"{name} {reason}" for name, reason in reasons.items()))
