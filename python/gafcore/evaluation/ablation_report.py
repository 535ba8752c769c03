"""An ablation as a table, as JSON, as rows of pictures and, over the number of frames, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gafcore.evaluation.ablation import Row
from gafcore.evaluation.plots import figure, series_plot
from gafcore.evaluation.sides import FAR_DEG, azimuth_deg
from gafcore.files import write_json, write_text
from gafcore.pictures import save_sheet
from gafcore.types import Frame

# split, figure, heading, digits: GAF's table 3, then what a small prior is judged by (docs/small_prior.md)
_COLUMNS = (
    ("novel", "lpips", "LPIPS ↓", 3),
    ("novel", "psnr", "PSNR ↑, dB", 2),
    ("novel", "ssim", "SSIM ↑", 4),
    ("expression", "lpips", "LPIPS ↓", 3),
    ("expression", "psnr", "PSNR ↑, dB", 2),
    ("expression", "ssim", "SSIM ↑", 4),
    ("train", "psnr", "PSNR ↑, dB", 2),
    ("far", "psnr", "PSNR ↑, dB", 2),
    ("far", "structure", "structure error ↓", 3),
)
_TITLES = {"novel": "novel views", "expression": "novel expressions", "train": "training frames", "far": f"beyond {FAR_DEG:.0f}°"}
_PLOTTED = (("lpips", "LPIPS"), ("psnr", "PSNR, dB"), ("ssim", "SSIM"))


def write_ablation(out: Path, stem: str, rows: Sequence[Row], shown: Sequence[Frame], notes: Sequence[str] = ()) -> None:
    """Write `stem`.json, .md and .png into `out`, and `stem`.svg where rows differ in their number of frames."""
    fitted = [row for row in rows if row.scores is not None]
    write_json(out / f"{stem}.json", {"rows": [to_json(row) for row in rows], "notes": list(notes)})
    write_text(out / f"{stem}.md", to_markdown(rows, notes))
    columns = [f"{azimuth_deg(frame.camera):+.0f} degrees" for frame in shown]
    pictures = [[frame.image() for frame in shown], *(row.pictures for row in fitted)]
    save_sheet(out / f"{stem}.png", pictures, ("truth", *(row.spec.label for row in fitted)), columns, cell_px=180)
    if any(row.spec.n_frames is not None for row in fitted):
        write_text(out / f"{stem}.svg", frames_figure(fitted))


def to_json(row: Row) -> dict[str, Any]:
    """Means over frames by split; null where the row was not run."""
    scores = None if row.scores is None else asdict(row.scores)
    told = {"preset": row.spec.preset, "frames": row.spec.n_frames, "not_run": row.not_run}
    return told | {"processor_seconds": row.processor_seconds, "scores": scores}


def to_markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The table; columns that no row has a figure for are left out, and a row that was not run says why."""
    columns = [c for c in _COLUMNS if any(_value(row, *c[:2]) is not None for row in rows)]
    headings = [f"{_TITLES[split]}: {heading}" for split, _, heading, _ in columns]
    lines = [_cells(["", *headings]), _cells(["---"] * (len(columns) + 1))]
    for row in rows:
        if row.not_run is not None:
            lines.append(_cells([row.spec.label, f"not run: {row.not_run}", *[""] * (len(columns) - 1)]))
            continue
        values = ((_value(row, split, name), digits) for split, name, _, digits in columns)
        lines.append(_cells([row.spec.label, *("" if value is None else f"{value:.{digits}f}" for value, digits in values)]))
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def row_line(row: Row) -> str:
    """A row for the log: decibels of whole pictures, and the structure error of the far sides."""
    if row.scores is None:
        return f"{row.spec.label:>16}: not run: {row.not_run}"
    scores = row.scores
    said = [f"training frames {scores.train['psnr']:.2f} dB", f"novel views {scores.novel['psnr']:.2f} dB"]
    if scores.expression:
        said.append(f"novel expressions {scores.expression['psnr']:.2f} dB")
    if scores.far:
        said.append(f"beyond {FAR_DEG:.0f} degrees {scores.far['psnr']:.2f} dB, structure error {scores.far['structure']:.3f}")
    return f"{row.spec.label:>16}: {', '.join(said)}"


def frames_figure(rows: Sequence[Row]) -> str:
    """GAF's figure 7: each figure over the number of training frames, a line for each preset."""
    presets = list(dict.fromkeys(row.spec.preset for row in rows))
    panels = []
    for split in ("novel", "expression"):
        line = []
        for name, label in _PLOTTED:
            points = {
                preset: sorted(
                    (float(row.spec.n_frames), value)
                    for row in rows
                    if row.spec.preset == preset and row.spec.n_frames and (value := _value(row, split, name)) is not None
                )
                for preset in presets
            }
            if any(points.values()):
                line.append(series_plot(f"{_TITLES[split]}: {label}", points, "training frames"))
        if line:
            panels.append(line)
    return figure(panels, presets)


def _value(row: Row, split: str, name: str) -> float | None:
    return None if row.scores is None else getattr(row.scores, split).get(name)


def _cells(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
