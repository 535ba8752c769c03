"""How good the small prior is on people that it never saw, by how far the view is turned, beside what needs no learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.small.people import N_VIEWS
from gafcore.diffusion.small.store import Batch, make_set

BINS = ((0, 15), (15, 45), (45, 90))  # degrees of azimuth to either side
Method = Callable[[Batch, int, list[int]], Tensor]
"""(set, person, which of the person's views) to views [1, N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Score:
    """Means over views: PSNR of whole pictures and of the head in dB, and gradient energy on the head relative to the truth's."""

    psnr: float
    psnr_head: float
    sharpness: float
    n_views: int


def evaluate(
    people: dict[str, np.ndarray], methods: dict[str, Method], *, background: float = 1.0, bins: Sequence[tuple[int, int]] = BINS
) -> dict[str, dict[tuple[int, int], Score]]:
    """Every method on all eight views of everyone, in two sets of four that each reach all around."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in methods}
    for person in range(len(people["image"])):
        for half in (0, 1):
            views = list(range(half, N_VIEWS, 2))
            batch = make_set(people, person, views, torch.full((3,), background))
            azimuths = np.abs(people["angles"][person, views, 0])
            for name, method in methods.items():
                made = method(batch, person, views)[0]
                pairs = zip(azimuths, made, batch.targets[0], batch.masks[0], strict=True)
                rows[name] += [(float(azimuth), *_compare(*pictures)) for azimuth, *pictures in pairs]
    return {name: {b: _mean([r for r in row if b[0] <= r[0] < b[1]]) for b in bins} for name, row in rows.items()}


def _compare(made: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"], mask: Float[Tensor, "1 H W"]) -> tuple[float, float, float]:
    error = ((made.clamp(-1, 1) - truth) / 2).square().mean(0)
    head = (mask[0] > 0.5).float()
    psnr = lambda x: -10 * math.log10(max(float(x), 1e-12))  # noqa: E731
    return psnr(error.mean()), psnr((error * head).sum() / head.sum().clamp_min(1)), _sharpness(made.clamp(-1, 1), truth, head)


def _sharpness(made: Tensor, truth: Tensor, head: Tensor) -> float:
    """Ratio of mean absolute differences of neighbouring pixels that are both on the head."""

    def energy(x: Tensor) -> float:
        across, down = head[:, 1:] * head[:, :-1], head[1:] * head[:-1]
        return float((x.diff(dim=-1).abs().mean(0) * across).sum() + (x.diff(dim=-2).abs().mean(0) * down).sum())

    return energy(made) / max(energy(truth), 1e-6)


def _mean(rows: list[tuple[float, float, float, float]]) -> Score:
    mean = lambda k: math.fsum(r[k] for r in rows) / max(len(rows), 1)  # noqa: E731
    return Score(mean(1), mean(2), mean(3), len(rows))


class NearestPerson:
    """The training person whose picture is most like the input, in the view nearest to each target's."""

    def __init__(self, training: dict[str, np.ndarray], people: dict[str, np.ndarray]) -> None:
        self.training, self.people = training, people
        self._pictures = _thumbnails(training["image"])
        self._of_tests = _thumbnails(people["image"])

    def match(self, person: int) -> int:
        return int(((self._pictures - self._of_tests[person]) ** 2).sum(1).argmin())

    def __call__(self, _: Batch, person: int, views: list[int]) -> Float[Tensor, "1 N 3 H W"]:
        twin = self.match(person)
        angles = self.training["angles"][twin]
        nearest = [int(((angles - self.people["angles"][person, v]) ** 2).sum(1).argmin()) for v in views]
        return make_set(self.training, twin, nearest, torch.ones(3)).targets


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """uint8 [P, 64, 64, 4] premultiplied to floats [P, 16 * 16 * 4]."""
    small = images.reshape(len(images), 16, 4, 16, 4, 4).astype(np.float32).mean((2, 4))
    return small.reshape(len(images), -1) / 255
