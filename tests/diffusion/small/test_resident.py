"""Batches put together on the device that trains, against those put together one set at a time."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from gafcore.diffusion.small import store
from gafcore.diffusion.small.resident import Draw, ResidentPeople, draw_batches
from gafcore.diffusion.small.store import TRAIN_SEED, GrowingPeople, join, make_set, mirror, recolor

CPU = torch.device("cpu")


@pytest.fixture
def resident(people_folder) -> ResidentPeople:
    people = ResidentPeople(people_folder, 4, CPU)
    assert people.refresh() == 4
    return people


def test_a_batch_is_what_single_sets_are(people_folder, resident):
    arrays = GrowingPeople(people_folder, 4).including(3)
    backgrounds = torch.tensor([[0.1, 0.5, 0.9], [1.0, 1.0, 1.0], [0.3, 0.2, 0.6]])
    people, views, mirrored = [2, 0, 3], [[5, 1], [0, 7], [3, 2]], [True, False, True]
    gains, contrasts, sets = [], [], []
    for k in range(3):
        rng = torch.Generator().manual_seed(k)  # as `recolor` draws
        gains.append((0.15 * torch.randn(1, generator=rng) + 0.06 * torch.randn(3, generator=rng)).exp())
        contrasts.append(math.exp(0.10 * float(torch.randn(1, generator=rng))))
        made = recolor(make_set(arrays, people[k], views[k], backgrounds[k]), torch.Generator().manual_seed(k))
        sets.append(mirror(made) if mirrored[k] else made)
    draw = Draw(torch.tensor(people), torch.tensor(views), backgrounds, torch.stack(gains), torch.tensor(contrasts), torch.tensor(mirrored))
    batch, want = resident.batch(draw), join(sets)
    for name in ("image", "fill", "conditions", "targets", "masks", "background"):
        torch.testing.assert_close(getattr(batch, name), getattr(want, name), rtol=0, atol=2e-6, msg=name)


def test_draws_cover_everyone_and_no_view_comes_twice():
    draws = draw_batches(torch.Generator().manual_seed(1), 5, 40, 6, 4)
    assert set(draws.people.flatten().tolist()) == set(range(5)) and draws.views.shape == (40, 6, 4)
    assert all(len(set(row)) == 4 for row in draws.views.flatten(0, 1).tolist())
    white = (draws.background == 1).all(-1).float().mean()
    assert 0.12 < float(white) < 0.28 and 0.35 < float(draws.mirrored.float().mean()) < 0.65
    assert abs(float(draws.gain.log().std()) - math.hypot(0.15, 0.06)) < 0.02


def test_people_made_later_join_and_the_rest_is_left_out(people_folder, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 4)
    people = ResidentPeople(people_folder, 6, CPU)
    assert people.refresh() == 4 and people.refresh() == 4
    shutil.copy(people_folder / f"people_{TRAIN_SEED}.safetensors", people_folder / f"people_{TRAIN_SEED + 4}.safetensors")
    assert people.refresh() == 6
    assert torch.equal(people.tensors["image"][4:], people.tensors["image"][:2])
