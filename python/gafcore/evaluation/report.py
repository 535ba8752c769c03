"""The report of an evaluation: one HTML file with everything inside, and the figures as JSON."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gafcore.evaluation.metrics import UNITS, error_picture
from gafcore.evaluation.plots import line_plot
from gafcore.files import write_json, write_text
from gafcore.pictures import to_uint8

if TYPE_CHECKING:
    from gafcore.evaluation.protocols import Evaluation, Sample

_JPEG_QUALITY = 90
_DIGITS = {"psnr": 2}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 0 0 1.2em; } figcaption { color: #555; font-size: .9em; }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px; } .row img { width: 100%; display: block; }
.sheet { max-width: 100%; }
.heads { color: #555; font-size: .9em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1em; }
.plot .title { font-size: 13px; font-weight: 600; } .plot .tick { font-size: 10.5px; fill: #666; } .plot .grid { stroke: #e4e4e4; }
.plot .line { fill: none; stroke: #2463a8; stroke-width: 1.4; } .plot .band { fill: #2463a8; opacity: .16; }
"""
_PLOTS = (("loss", "Loss"), ("psnr", "PSNR of the training picture, dB"), ("n_gaussians", "Gaussians"))


def write_report(evaluation: Evaluation, out: Path, history: dict[str, list[float]] | None = None) -> Path:
    """Write `out/evaluation.json` and `out/report.html`."""
    write_json(out / "evaluation.json", to_json(evaluation))
    path = out / "report.html"
    write_text(path, to_html(evaluation, history))
    return path


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Means a split and a camera, then every frame. Figures named "head_..." are inside the head mask."""
    return {
        **evaluation.info,
        "notes": list(evaluation.notes),
        "mean": {split: evaluation.mean(split) for split in evaluation.splits},
        "by_camera": {split: evaluation.by_camera(split) for split in evaluation.splits},
        "frames": [{"split": s.split, "frame": s.frame, "timestep": s.timestep, "camera": s.camera, **s.values} for s in evaluation.scores],
    }


def to_html(evaluation: Evaluation, history: dict[str, list[float]] | None = None) -> str:
    info = ", ".join(f"{name.removeprefix('n_')}: {value}" for name, value in evaluation.info.items())
    body = [f"<h1>Avatar evaluation</h1><p>{escape(info)}</p>", _table(evaluation)]
    body += [f"<p>{escape(note)}</p>" for note in evaluation.notes]
    if history and history.get("iteration"):
        plots = "".join(line_plot(title, history["iteration"], history[name]) for name, title in _PLOTS)
        body.append(f'<h2>Fitting</h2><div class="plots">{plots}</div>')
    for heading, picture in evaluation.sheets.items():
        body.append(f'<h2>{escape(heading)}</h2><img class="sheet" alt="" src="{_inline(picture)}">')
    for split in evaluation.splits:
        rows = "".join(_row(sample) for sample in evaluation.samples if sample.split == split)
        heads = "<span>input</span><span>ground truth</span><span>render</span><span>error (black: 64 of 255 or more)</span>"
        body.append(f'<h2>{escape(_title(split))}</h2><div class="row heads">{heads}</div>{rows}')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Avatar evaluation</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _table(evaluation: Evaluation) -> str:
    means = {split: evaluation.mean(split) for split in evaluation.splits}
    names = dict.fromkeys(name for mean in means.values() for name in mean)
    header = "".join(f"<th>{escape(_column_title(name))}</th>" for name in names)
    lines = []
    for split, mean in means.items():
        cells = "".join(f"<td>{_number(name, mean.get(name))}</td>" for name in names)
        count = sum(score.split == split for score in evaluation.scores)
        lines.append(f"<tr><td>{escape(_title(split))}</td><td>{count}</td>{cells}</tr>")
    return f"<table><tr><th>split</th><th>frames</th>{header}</tr>{''.join(lines)}</table>"


def _column_title(name: str) -> str:
    base = name.removeprefix("head_")
    unit = f" ({UNITS[base]})" if UNITS[base] else ""
    return f"{base.upper()}{unit}{', head' if base != name else ''}"


def _number(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS.get(name.removeprefix('head_'), 4)}f}"


def _title(split: str) -> str:
    return split.replace("_", " ")


def _row(sample: Sample) -> str:
    pictures = (sample.given, sample.truth, sample.image, error_picture(sample.image, sample.truth))
    images = "".join(f'<img alt="" src="{_inline(picture)}">' for picture in pictures)
    return f'<figure><div class="row">{images}</div><figcaption>{escape(sample.label)}</figcaption></figure>'


def _inline(image: Float[Tensor, "H W 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
