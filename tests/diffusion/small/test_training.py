from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from gafcore.diffusion.small.store import GrowingPeople, training_batch
from gafcore.diffusion.small.training import TrainConfig, dropped, rate, train
from gafcore.errors import InputError
from tests.cases.small_prior import TINY

QUICK = TrainConfig(steps=6, batch=2, warmup=2, network=TINY)


class Stop(Exception):
    pass


@pytest.mark.parametrize("task", ["regression", "diffusion"])
def test_stopped_and_resumed_equals_uninterrupted(people_folder, tmp_path, task):
    people, config = GrowingPeople(people_folder, 4), replace(QUICK, task=task)
    whole = train(people, config, tmp_path / "whole")

    def stop(step, _):
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(people, config, tmp_path / "parts", checkpoint_every=3, report=stop)
    steps = []
    resumed = train(people, config, tmp_path / "parts", checkpoint_every=3, report=lambda step, _: steps.append(step))
    assert steps == [4, 5, 6]
    a, b = load_file(whole), load_file(resumed)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_regression_learns_what_tells_views_from_their_fill(people_folder, tmp_path):
    """Views are brighter than their fills: the loss falls far below that of the fill itself, which the first step has."""
    people, losses = GrowingPeople(people_folder, 4), []
    arrays = people.including(3)
    arrays["fill"][:], arrays["targets"][..., :3], arrays["targets"][..., 3], arrays["normals"][..., 2] = 64, 192, 255, -127
    train(people, replace(QUICK, steps=25, learning_rate=2e-2), tmp_path, report=lambda _, loss: losses.append(loss))
    assert losses[0] > 0.2 and sum(losses[-5:]) / 5 < 0.3 * losses[0]


def test_another_trainings_checkpoint_is_refused(people_folder, tmp_path):
    train(GrowingPeople(people_folder, 4), QUICK, tmp_path)
    with pytest.raises(InputError, match="is a checkpoint of another training"):
        train(GrowingPeople(people_folder, 4), replace(QUICK, seed=1), tmp_path)


def test_diffusion_begins_with_the_weights_it_is_given(people_folder, tmp_path):
    people = GrowingPeople(people_folder, 4)
    first = train(people, replace(QUICK, steps=2), tmp_path / "a")
    second = train(people, replace(QUICK, task="diffusion", steps=1, learning_rate=0.0, weight_decay=0.0), tmp_path / "b", start=first)
    a, b = load_file(first), load_file(second)
    assert all(torch.allclose(a[name], b[name]) for name in a)


def test_the_rate_warms_up_and_cools_down():
    config = TrainConfig(steps=1000, warmup=100, learning_rate=1.0)
    assert rate(config, 0) == pytest.approx(0.01) and rate(config, 100) == pytest.approx(1.0)
    assert rate(config, 550) == pytest.approx(0.505) and rate(config, 999) == pytest.approx(0.01, abs=1e-4)


def test_what_is_dropped(people_folder):
    """Picture, fill and visibility go; the normals, which steer the view, stay."""
    batch = training_batch(GrowingPeople(people_folder, 4), 2, 2, 0, 0)
    bare = dropped(batch, torch.tensor([1.0, 0.0]))
    assert torch.equal(bare.image[0], batch.image[0]) and float(bare.image[1].abs().max()) == 0
    assert float(bare.conditions[1, :, :1].abs().max()) == 0 and torch.equal(bare.conditions[:, :, 1:], batch.conditions[:, :, 1:])
    torch.testing.assert_close(bare.fill[1, 0, :, 3, 3], 2 * batch.background[1] - 1)
