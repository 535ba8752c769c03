"""Random numbers that depend on where they are used, not on what was drawn before: what makes a resumed run equal an uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by all of `numbers`, each >= 0."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def normal(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal [len(generators), *shape]; row i from generator i alone, so that rows do not care which batch they are in."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])


def uniform(generators: Sequence[torch.Generator]) -> Tensor:
    """[len(generators)] in [0, 1)."""
    return torch.stack([torch.rand((), generator=g) for g in generators])


def integers(generators: Sequence[torch.Generator], end: int) -> Tensor:
    """[len(generators)] in 0..end - 1."""
    return torch.stack([torch.randint(end, (), generator=g) for g in generators])


def epoch_order(seed: int, n: int, first: int, count: int) -> list[int]:
    """Places first..first + count - 1 of an endless sequence of shuffles of 0..n - 1: every sample once an epoch."""
    out: list[int] = []
    while len(out) < count:
        epoch, place = divmod(first + len(out), n)
        order = torch.randperm(n, generator=generator(seed, 1, epoch))
        out += order[place : place + count - len(out)].tolist()
    return out
