"""`gafcore fit`: a capture becomes an avatar."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gafcore import captures
from gafcore.cli.flags import Flat, PathArgument
from gafcore.devices import resolve
from gafcore.fitting import Execution, FitConfig, FitResult, PseudoConfig, fit, make_prior


def summary(result: FitResult) -> str:
    """Speed in all and by stage."""
    total = result.seconds["total"]
    stages = sorted(((v, k) for k, v in result.seconds.items() if k != "total"), reverse=True)
    shares = ", ".join(f"{name} {1e3 * value / max(result.iterations, 1):.1f}" for value, name in stages)
    return f"{result.iterations} iterations in {total:.0f} s, {result.iterations / total:.1f} it/s; milliseconds an iteration: {shares}"


@dataclass(frozen=True)
class Fit:
    """Fit an animatable Gaussian avatar to a capture. Ctrl-C writes a checkpoint first; --resume goes on from it."""

    capture: PathArgument
    """Folder of a capture, as `gafcore track` or `gafcore synth` writes it."""
    out: Path
    """Folder for the avatar and its checkpoints."""
    resume: bool = False
    """Go on from the newest checkpoint in the output folder."""
    prior: str = "none"
    """What supervises the sides that the camera never saw: "small" (shipped with the package, docs/small_prior.md), "none", or the path of
    a prior that scripts/train_small_prior.py made."""
    pseudo: Flat[PseudoConfig] = field(default_factory=PseudoConfig)
    execution: Flat[Execution] = field(default_factory=Execution)
    config: Flat[FitConfig] = field(default_factory=FitConfig)

    def run(self) -> None:
        resolve(self.execution.device)  # before anything is read: a missing GPU is told at once
        prior = make_prior(self.prior, self.pseudo)
        result = fit(captures.read(self.capture), self.config, prior=prior, out=self.out, resume=self.resume, execution=self.execution)
        print(summary(result))
        for note in result.notes:
            print(note)
        print(f"wrote {self.out}: {len(result.avatar)} Gaussians")
