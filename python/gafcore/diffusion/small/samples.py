"""Synthetic people as training samples for models of any size (`gafcore.diffusion.sample`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gafcore.diffusion.sample import ViewSample
from gafcore.diffusion.small.people import N_VIEWS, Person, make_person
from gafcore.diffusion.small.store import TRAIN_SEED, random_background
from gafcore.rigs.base import Rig


@dataclass(frozen=True)
class SyntheticPeople:
    """`count` people, two samples each (every other view), made when asked for: sample i is a function of i and `first_seed`."""

    rig: Rig
    count: int
    first_seed: int = TRAIN_SEED

    def __len__(self) -> int:
        return 2 * self.count

    def __getitem__(self, index: int) -> ViewSample:
        """Sample `index`; about half a second of work.

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample must be 0 to {len(self) - 1}, got {index}")
        seed, half = self.first_seed + index // 2, index % 2
        background = random_background(torch.Generator().manual_seed(2 * seed + half))
        return to_sample(make_person(self.rig, seed), list(range(half, N_VIEWS, 2)), background, key=f"{seed}/0/{half}")


def to_sample(person: Person, views: list[int], background: Tensor, *, key: str) -> ViewSample:
    """Some of a person's views on a background."""
    picture, targets = _unit(person.image), _unit(person.targets[views])
    normals = torch.from_numpy(person.normals[views]).float() / 127
    on_rig = (normals.abs().sum(-1, keepdim=True) > 0).float()
    cameras = torch.from_numpy(person.cameras)
    viewmats, Ks = cameras[:, :16].unflatten(1, (4, 4)), cameras[:, 16:].unflatten(1, (3, 3))
    chosen = [v + 1 for v in views]
    return ViewSample(
        image=_over(picture, background),
        image_normals=torch.from_numpy(person.image_normals).float() / 127,
        targets=_over(targets, background),
        masks=targets[..., 3],
        normals=normals,
        image_viewmat=viewmats[0],
        image_K=Ks[0],
        viewmats=viewmats[chosen],
        Ks=Ks[chosen],
        warp=_unit(person.fill[views]) + (1 - on_rig) * background,
        visibility=_unit(person.visibility[views]),
        key=key,
    )


def _unit(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).float() / 255


def _over(rgba: Tensor, background: Tensor) -> Tensor:
    return rgba[..., :3] + (1 - rgba[..., 3:]) * background
