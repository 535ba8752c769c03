"""Reproducible randomness: a generator for every purpose, and smooth noise over space and time."""

from __future__ import annotations

import zlib

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

_LATTICE = 32  # cells until noise over space repeats


def generator(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own for each purpose, so that drawing more numbers for one does not change another."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {purpose}".encode()))


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))


def normal(rng: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
    return torch.randn(*shape, generator=rng)


class Noise3:
    """Smooth noise over space, about -1..1, from a periodic lattice of random values."""

    def __init__(self, rng: torch.Generator) -> None:
        table = torch.rand(_LATTICE, _LATTICE, _LATTICE, generator=rng) * 2 - 1
        for axis in range(3):  # the far side repeats the near one, so that interpolation wraps
            table = torch.cat([table, table.narrow(axis, 0, 1)], axis)
        self._table = table[None, None]

    def __call__(self, points: Float[Tensor, "N 3"], wavelength_m: float, octaves: int = 1) -> Float[Tensor, "N"]:
        """The noise at `points` (metres); each octave has half the wavelength and half the strength of the one before."""
        total, weight, norm = torch.zeros(len(points)), 1.0, 0.0
        for octave in range(octaves):
            cells = points * (2**octave / wavelength_m) + 7.3 * octave
            cell = cells.floor()
            t = cells - cell
            smooth = (cell.remainder(_LATTICE) + t * t * (3 - 2 * t)) * (2 / _LATTICE) - 1
            total += weight * grid_sample(self._table, smooth[None, None, None], align_corners=True).flatten()
            norm, weight = norm + weight, weight / 2
        return total / norm


def over_time(rng: torch.Generator, n: int, fps: float, period_s: float) -> Float[Tensor, "n"]:
    """Smooth noise over `n` timesteps with about one swing in `period_s`, about N(0, 1) in size, twice differentiable."""
    knots = int(n / (fps * period_s)) + 5
    values = torch.randn(knots, generator=rng) * 1.3  # the spline below averages neighbours
    position = torch.arange(n) / (fps * period_s) + float(torch.rand((), generator=rng))
    i = position.floor().long()
    t = position - i
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6  # uniform cubic B-spline
    return sum(w * values[i + k] for k, w in enumerate(weights))


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between; falling when low > high."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
