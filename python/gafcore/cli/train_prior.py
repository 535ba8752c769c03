"""`gafcore train-prior`: the multi-view prior, its upsampler or its autoencoder learn from captures."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from gafcore.cli.flags import Flat
from gafcore.diffusion.train_config import TrainConfig
from gafcore.errors import MissingError


def need_extra() -> None:
    """Raises MissingError without the extra `diffusion`."""
    missing = [name for name in ("diffusers", "transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingError(f"training a prior needs {', '.join(missing)}: pip install 'gafcore[diffusion]'")


@dataclass(frozen=True)
class TrainPrior:
    """Train the multi-view prior, its upsampler or an autoencoder. The defaults are the paper's; --size small or tiny is for less than a
    cluster. Under `accelerate launch` (on CPUs `torchrun`) it runs in several processes."""

    data: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Captures (a folder, or a folder of them), synthetic:SEEDS (synthetic:0-99), or one folder of shards."""
    out: Path
    """Folder for the result, checkpoints and sheets; with --shards-only for the shards."""
    resume: bool = False
    """Go on from the newest checkpoint in the output folder."""
    shards_only: bool = False
    """Encode the captures once and write shards to the output folder instead of training."""
    cpu: bool = False
    """Keep off any GPU."""
    config: Flat[TrainConfig] = field(default_factory=TrainConfig)

    def run(self) -> None:
        need_extra()
        from gafcore.diffusion.train import prepare_shards, train_prior

        if self.shards_only:
            print(f"wrote {prepare_shards(self.data, self.config, self.out)}")
            return
        result = train_prior(self.data, self.config, self.out, resume=self.resume, cpu=self.cpu)
        print(f"wrote {result.folder}: {result.trained.step} steps, last loss {result.trained.losses[-1]:.4f}")
