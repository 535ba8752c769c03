"""What changes with the iteration. Every choice is a function of the seed and the iteration alone, so a resumed run makes the same ones."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.fitting.config import Background, FitConfig

_PURPOSES = {"order": 1, "background": 2, "density": 3, "prior": 4}


def generator(config: FitConfig, purpose: str, iteration: int) -> torch.Generator:
    """A CPU generator of its own for one purpose at one iteration."""
    mixed = (config.seed * 1_000_003 + _PURPOSES[purpose]) * 2_147_483_647 + iteration
    return torch.Generator().manual_seed(mixed % 2**63)


def frame_at(config: FitConfig, iteration: int, frames: tuple[int, ...]) -> int:
    """The training frame of an iteration (from 1): each frame once an epoch, in a new random order every epoch."""
    epoch, place = divmod(iteration - 1, len(frames))
    return frames[int(torch.randperm(len(frames), generator=generator(config, "order", epoch))[place])]


def background_at(config: FitConfig, iteration: int) -> Float[Tensor, "3"]:
    """RGB behind the head."""
    return background_color(config.background, generator(config, "background", iteration))


def background_color(background: Background, source: torch.Generator) -> Float[Tensor, "3"]:
    if background == "random":
        return torch.rand(3, generator=source)
    return torch.full((3,), 1.0 if background == "white" else 0.0)


def means_rate(config: FitConfig, iteration: int) -> float:
    """Step size of the local means, log-linear from `lr.means` to `lr.means_last`."""
    first, last = config.lr.means, config.lr.means_last
    if min(first, last) <= 0 or config.iterations < 2:
        return first
    share = (iteration - 1) / (config.iterations - 1)
    return math.exp((1 - share) * math.log(first) + share * math.log(last))


def sh_degree_at(config: FitConfig, iteration: int) -> int:
    return min(config.sh_degree, (iteration - 1) // config.sh_every)
