"""`gafcore demo`: everything once, on a synthetic person: capture, fit, evaluation, orbit video, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars import RiggedAvatar, render, save_avatar
from gafcore.captures import synthetic, vhap
from gafcore.captures.synthetic import SynthConfig
from gafcore.cli.evaluate import lines
from gafcore.cli.fit import summary
from gafcore.devices import DeviceName, resolve
from gafcore.evaluation import Evaluation, evaluate
from gafcore.evaluation.sides import azimuth_deg, frames_around
from gafcore.export.video import orbit_shots, render_shots
from gafcore.fitting import Execution, FitConfig, FitResult, Prior, fit, make_prior
from gafcore.movies import write_frames
from gafcore.pictures import save_image, save_sheet, sheet
from gafcore.progress import track
from gafcore.types import Capture

PRESETS = {
    "full": (SynthConfig(size=512, n_timesteps=60, eval_timesteps=4), FitConfig(iterations=3000)),
    "small": (SynthConfig(size=192, n_timesteps=20, eval_timesteps=2), FitConfig(iterations=400)),
}
_COMPARED = "The same person without and with the prior, from where no camera was"


@dataclass(frozen=True)
class Demo:
    """Make a synthetic capture, fit an avatar to its frontal camera, measure it on the other cameras, write a report with pictures.

    The fit is done twice, without and with the prior that knows what heads look like from the side (docs/small_prior.md); the second avatar
    is kept. `--prior none` does it once.
    """

    out: Path = Path("out/demo")
    """Folder for the capture, the avatar, the report and the video."""
    preset: Literal["full", "small"] = "full"
    """full: 512x512, some minutes on two cores; small: a quick look."""
    seed: int = 5
    """Chooses the person. Hair that the frontal camera does not see (0 wears a bun) can only be guessed from the side."""
    prior: str = "small"
    """The prior: "small", "none", or the path of another one; with one the fit is done twice."""
    device: DeviceName = "auto"
    """Where to fit, measure and render: cpu, cuda, or auto: the GPU where there is one and gafcore was compiled with CUDA."""

    def run(self) -> None:
        start = time.perf_counter()
        device = resolve(self.device)
        synth, config = PRESETS[self.preset]
        synth = replace(synth, seed=self.seed)
        prior = make_prior(self.prior)
        print(f"1/4 a synthetic person, {synth.size}x{synth.size}, {synth.n_timesteps} timesteps")
        vhap.write(synthetic.make(synth).capture, self.out / "capture")
        capture = vhap.read(self.out / "capture")
        twice = "" if prior is None else ", without the prior and with it"
        print(f"2/4 fit: {config.iterations} iterations on the frontal camera{twice}, computed on {device.type}")
        results = [_fit(capture, config, None, self.device)]  # keep nothing when interrupted: a demo starts over
        if prior is not None:
            results.append(_fit(capture, config, prior, self.device))
        save_avatar(results[-1].avatar, self.out / "avatar", iteration=config.iterations, info={"notes": list(results[-1].notes)})
        print("3/4 evaluation on pictures that the fit never saw")
        report = _evaluate(capture, results, self.out)
        print("4/4 orbit video")
        _orbit(results[-1].avatar, synth, self.out)
        print(f"done in {time.perf_counter() - start:.0f} s. Look at:")
        for name in (report.name, "prior.png", "orbit.png", "orbit.mp4"):
            if (self.out / name).exists():
                print(f"    {self.out / name}")


def _fit(capture: Capture, config: FitConfig, prior: Prior | None, device: DeviceName) -> FitResult:
    result = fit(capture, config, prior=prior, execution=Execution(device=device))
    print(f"    {summary(result)}")
    return result


def _evaluate(capture: Capture, results: Sequence[FitResult], out: Path) -> Path:
    evaluations = [evaluate(result.avatar, capture) for result in results]
    for label, evaluation in zip(("without the prior", "with the prior"), evaluations, strict=False):
        print(f"    {label}:\n        " + "\n        ".join(lines(evaluation)))
    chosen, notes = evaluations[-1], (*results[-1].notes, *evaluations[-1].notes)
    sheets = {}
    if len(results) > 1:
        notes = (*notes, *(f"Without the prior, {split}: {_figures(evaluations[0], split)}." for split in chosen.splits))
        sheets[_COMPARED] = compare_sheet(capture, [result.avatar for result in results])
        save_image(out / "prior.png", sheets[_COMPARED])
    return replace(chosen, notes=notes, sheets=sheets).write(out, results[-1].history)


def _figures(evaluation: Evaluation, split: str) -> str:
    mean = evaluation.mean(split)
    return f"PSNR {mean['psnr']:.2f} dB, SSIM {mean['ssim']:.4f}"


def compare_sheet(capture: Capture, avatars: Sequence[RiggedAvatar]) -> Float[Tensor, "H W 3"]:
    """Truth and both avatars, from one side to the other."""
    frames = frames_around(capture)
    rows = [[frame.image() for frame in frames]]
    for avatar in avatars:
        background = avatar.means.new_tensor(capture.background)
        with torch.no_grad():
            rows.append([render(avatar, [f.camera], avatar.params[f.timestep], background).image[0].clamp(0, 1) for f in frames])
    return sheet(rows, ("truth", "without", "with"), [f"{azimuth_deg(frame.camera):+.0f} degrees" for frame in frames], cell_px=200)


def _orbit(avatar: RiggedAvatar, synth: SynthConfig, out: Path) -> None:
    shots = orbit_shots(avatar, 96, synth.size, synth.size)
    pictures = list(render_shots(avatar, track(shots, "render")))
    write_frames(out / "orbit.mp4", pictures, fps=synth.fps)
    chosen = [torch.from_numpy(pictures[i]).float() / 255 for i in range(0, len(pictures), len(pictures) // 8)]
    save_sheet(out / "orbit.png", [chosen[:4], chosen[4:8]])
