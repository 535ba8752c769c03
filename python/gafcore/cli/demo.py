"""`gafcore demo`: everything once, on a synthetic person: capture, fit, evaluation, orbit video, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from gafcore.avatars import save_avatar
from gafcore.captures import synthetic, vhap
from gafcore.captures.synthetic import SynthConfig
from gafcore.cli.evaluate import lines
from gafcore.cli.fit import summary
from gafcore.evaluation import evaluate
from gafcore.export.video import orbit_shots, render_shots
from gafcore.fitting import FitConfig, fit
from gafcore.movies import write_frames
from gafcore.pictures import save_sheet
from gafcore.progress import track

PRESETS = {
    "full": (SynthConfig(size=512, n_timesteps=60, eval_timesteps=4), FitConfig(iterations=3000)),
    "small": (SynthConfig(size=192, n_timesteps=20, eval_timesteps=2), FitConfig(iterations=400)),
}


@dataclass(frozen=True)
class Demo:
    """Make a synthetic capture, fit an avatar to its frontal camera, measure it on the other cameras, write a report with pictures."""

    out: Path = Path("out/demo")
    """Folder for the capture, the avatar, the report and the video."""
    preset: Literal["full", "small"] = "full"
    """full: 512x512, some minutes on two cores; small: a quick look."""
    seed: int = 5
    """Chooses the person. Hair that the frontal camera does not see (0 wears a bun) is missing from the side."""

    def run(self) -> None:
        start = time.perf_counter()
        synth, config = PRESETS[self.preset]
        synth = replace(synth, seed=self.seed)
        print(f"1/4 a synthetic person, {synth.size}x{synth.size}, {synth.n_timesteps} timesteps")
        vhap.write(synthetic.make(synth).capture, self.out / "capture")
        capture = vhap.read(self.out / "capture")
        print(f"2/4 fit: {config.iterations} iterations on the frontal camera")
        result = fit(capture, config)  # keeps nothing when interrupted: a demo starts over
        save_avatar(result.avatar, self.out / "avatar", iteration=result.iterations, info={"notes": list(result.notes)})
        print(f"    {summary(result)}")
        print("3/4 evaluation on pictures that the fit never saw")
        evaluation = evaluate(result.avatar, capture)
        evaluation = replace(evaluation, notes=(*result.notes, *evaluation.notes))
        report = evaluation.write(self.out, result.history)
        print("    " + "\n    ".join(lines(evaluation)))
        print("4/4 orbit video")
        size = (synth.size, synth.size)
        shots = orbit_shots(result.avatar, 96, *size)
        pictures = list(render_shots(result.avatar, track(shots, "render")))
        write_frames(self.out / "orbit.mp4", pictures, fps=synth.fps)
        chosen = [torch.from_numpy(pictures[i]).float() / 255 for i in range(0, len(pictures), len(pictures) // 8)]
        save_sheet(self.out / "orbit.png", [chosen[:4], chosen[4:8]])
        print(f"done in {time.perf_counter() - start:.0f} s. Look at:")
        for path in (report, self.out / "orbit.png", self.out / "orbit.mp4"):
            print(f"    {path}")
