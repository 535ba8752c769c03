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
from gafcore.diffusion.small.store import Batch, join, make_set

BINS = ((0, 15), (15, 45), (45, 90))  # degrees of azimuth to either side
Sets = Sequence[tuple[int, list[int]]]
"""For each set of a batch: which person, and which of the person's views."""
Method = Callable[[Batch, Sets], Tensor]
"""Sets to views [B, N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Score:
    """Means over views: PSNR of whole pictures and of the head in dB, and gradient energy on the head relative to the truth's."""

    psnr: float
    psnr_head: float
    sharpness: float
    n_views: int


def sets_of(n_people: int) -> list[tuple[int, list[int]]]:
    """All eight views of everyone, in two sets of four that each reach all around."""
    return [(person, list(range(half, N_VIEWS, 2))) for person in range(n_people) for half in (0, 1)]


def batch_of(people: dict[str, np.ndarray], sets: Sets, background: float, device: torch.device | str, condition: str = "rig") -> Batch:
    """Sets of people on a grey of this brightness, to look at."""
    return join([make_set(people, person, views, torch.full((3,), background), condition) for person, views in sets]).to(device)


def evaluate(
    people: dict[str, np.ndarray],
    methods: dict[str, Method],
    *,
    background: float = 1.0,
    bins: Sequence[tuple[int, int]] = BINS,
    device: torch.device | str = "cpu",
    at_once: int = 16,
    condition: str = "rig",
) -> dict[str, dict[tuple[int, int], Score]]:
    """Every method on `sets_of` everyone, `at_once` sets a call."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    sets = sets_of(len(people["image"]))
    for start in range(0, len(sets), at_once):
        group = sets[start : start + at_once]
        batch = batch_of(people, group, background, device, condition)
        azimuths = np.abs(np.concatenate([people["angles"][person, views, 0] for person, views in group]))
        for name, method in methods.items():
            scores = _compare(method(batch, group), batch)
            rows[name] += [(float(azimuth), *score) for azimuth, score in zip(azimuths, scores, strict=True)]
    return {name: {b: _mean([r for r in row if b[0] <= r[0] < b[1]]) for b in bins} for name, row in rows.items()}


def _compare(made: Float[Tensor, "B N 3 H W"], batch: Batch) -> list[list[float]]:
    """PSNR, PSNR on the head and sharpness of each view, in order."""
    made, truth = made.clamp(-1, 1).flatten(0, 1), batch.targets.flatten(0, 1)
    error = ((made - truth) / 2).square().mean(1)
    head = (batch.masks.flatten(0, 1)[:, 0] > 0.5).float()
    psnr = lambda x: -10 * torch.log10(x.clamp_min(1e-12))  # noqa: E731
    on_head = (error * head).sum((1, 2)) / head.sum((1, 2)).clamp_min(1)
    return torch.stack([psnr(error.mean((1, 2))), psnr(on_head), _sharpness(made, truth, head)], 1).tolist()


def _sharpness(made: Tensor, truth: Tensor, head: Tensor) -> Float[Tensor, "V"]:
    """Ratio of mean absolute differences of neighbouring pixels that are both on the head."""

    def energy(x: Tensor) -> Tensor:
        across, down = head[:, :, 1:] * head[:, :, :-1], head[:, 1:] * head[:, :-1]
        return (x.diff(dim=-1).abs().mean(1) * across).sum((1, 2)) + (x.diff(dim=-2).abs().mean(1) * down).sum((1, 2))

    return energy(made) / energy(truth).clamp_min(1e-6)


def _mean(rows: list[tuple[float, ...]]) -> Score:
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

    def __call__(self, batch: Batch, sets: Sets) -> Float[Tensor, "B N 3 H W"]:
        return torch.cat([self._views(person, views) for person, views in sets]).to(batch.targets.device)

    def _views(self, person: int, views: list[int]) -> Float[Tensor, "1 N 3 H W"]:
        twin = self.match(person)
        angles = self.training["angles"][twin]
        nearest = [int(((angles - self.people["angles"][person, v]) ** 2).sum(1).argmin()) for v in views]
        return make_set(self.training, twin, nearest, torch.ones(3)).targets


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """uint8 [P, 64, 64, 4] premultiplied to floats [P, 16 * 16 * 4]."""
    small = images.reshape(len(images), 16, 4, 16, 4, 4).astype(np.float32).mean((2, 4))
    return small.reshape(len(images), -1) / 255
