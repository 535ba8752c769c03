"""`gafcore ablate`: the same fit with one prior after the other, as in GAF's table 3."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore import captures
from gafcore.avatars import RiggedAvatar, render
from gafcore.cli.flags import Flat, PathArgument
from gafcore.errors import InputError
from gafcore.evaluation.sides import SideScores, azimuth_deg, side_scores
from gafcore.files import check_output_folder, write_json
from gafcore.fitting import FitConfig, PseudoConfig, fit, make_prior
from gafcore.pictures import save_sheet
from gafcore.types import Capture, Frame

PRESETS: dict[str, PseudoConfig | None] = {
    "none": None,
    "sds": PseudoConfig(prior_start="sds", prior_levels=(0.02, 0.98), prior_weight=60.0),
    "render": PseudoConfig(
        prior_start="render", prior_levels=(0.02, 0.98), prior_weight=1.0, prior_yields=0.0, prior_fades=1.0, refresh_every=1
    ),
    "refined": PseudoConfig(prior_start="refined"),
    "regression": PseudoConfig(),
}
"""none: no prior; sds: score distillation, which gives way and fades as the defaults do; render: GAF's pseudo ground truths, from noised
renders, with the paper's settings; regression, refined: the defaults of `gafcore fit`, and the same made sharper by a little noise and
denoising. The gradient of a squared loss is small: sds has the largest of three weights that were tried on one person, 2, 20 and 60
(docs/small_prior.md)."""
_SHOWN = 6


@dataclass(frozen=True)
class Ablate:
    """Fit the same capture with different uses of the prior and one seed; write a table and a picture row for each."""

    capture: PathArgument
    """Folder of a capture whose split "novel_view" holds cameras that the fit does not see (`gafcore synth` makes such)."""
    out: Path
    """Folder for ablation.json and ablation.png."""
    presets: tuple[str, ...] = tuple(PRESETS)
    """Which to run: none, sds, render, refined, regression."""
    prior: str = "small"
    """The prior: "small" or a path."""
    config: Flat[FitConfig] = field(default_factory=lambda: FitConfig(iterations=1000))

    def run(self) -> None:
        unknown = [name for name in self.presets if name not in PRESETS]
        if unknown:
            raise InputError(f"unknown presets {unknown}; known are {list(PRESETS)}")
        check_output_folder(self.out)
        capture = captures.read(self.capture)
        if not capture.splits.get("novel_view"):
            raise InputError(f"{self.capture}: has no frames in split 'novel_view', so the sides cannot be measured")
        rows, results = [], {}
        frames = frames_around(capture)
        for name in self.presets:
            avatar, seconds = run_preset(capture, self.config, name, self.prior)
            scores = side_scores(avatar, capture)
            results[name] = {**asdict(scores), "processor_seconds": seconds}
            print(line(name, scores))
            rows.append([_picture(avatar, capture, frame) for frame in frames])
        write_json(self.out / "ablation.json", results)
        labels = [f"{azimuth_deg(frame.camera):+.0f} degrees" for frame in frames]
        save_sheet(self.out / "ablation.png", [[f.image() for f in frames], *rows], ("truth", *self.presets), labels, cell_px=180)
        print(f"wrote {self.out}")


def run_preset(capture: Capture, config: FitConfig, name: str, prior: str = "small") -> tuple[RiggedAvatar, float]:
    """The avatar of a preset, and the processor time of its fit, seconds."""
    chosen = PRESETS[name]
    start = time.process_time()
    result = fit(capture, config, prior=None if chosen is None else make_prior(prior, chosen))
    return result.avatar, time.process_time() - start


def line(name: str, scores: SideScores) -> str:
    """Decibels of whole pictures, and the structure error of the far sides."""
    far = f", beyond 45 degrees {scores.far['psnr']:.2f} dB, structure error {scores.far['structure']:.3f}" if scores.far else ""
    return f"{name:>10}: training view {scores.train['psnr']:.2f} dB, novel views {scores.novel['psnr']:.2f} dB{far}"


def frames_around(capture: Capture) -> list[Frame]:
    """Frames of one moment, from one side to the other."""
    frames = [capture.frames[i] for i in capture.splits["novel_view"]]
    moment = frames[len(frames) // 2].timestep
    row = sorted((f for f in frames if f.timestep == moment), key=lambda f: azimuth_deg(f.camera))
    places = torch.linspace(0, len(row) - 1, min(_SHOWN, len(row))).round().long().tolist()
    return [row[i] for i in dict.fromkeys(places)]


def _picture(avatar: RiggedAvatar, capture: Capture, frame: Frame) -> Float[Tensor, "H W 3"]:
    with torch.no_grad():
        image = render(avatar, [frame.camera], avatar.params[frame.timestep], avatar.means.new_tensor(capture.background)).image
    return image[0].clamp(0, 1)
