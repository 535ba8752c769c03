"""Training by the clock. CUDA graphs run on GPUs only; that nothing is left on the processor is seen on "meta"."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gafcore.diffusion.small import timed
from gafcore.diffusion.small.network import SmallPriorNetwork
from gafcore.diffusion.small.resident import ResidentPeople, draw_batches
from gafcore.diffusion.small.timed import train_timed
from gafcore.diffusion.small.training import TrainConfig
from gafcore.errors import InputError
from tests.cases.small_prior import TINY

QUICK = TrainConfig(steps=30, batch=2, warmup=2, ema=0.9, network=TINY)
CPU = torch.device("cpu")


@pytest.fixture
def people(people_folder) -> ResidentPeople:
    return ResidentPeople(people_folder, 4, CPU)


def test_it_learns_and_stops_at_the_last_step(people, tmp_path):
    """Views are brighter than their fills: the loss falls far below that of the fill itself, which the first steps have."""
    people.refresh()
    arrays = people.tensors
    arrays["fill"][:], arrays["targets"][..., :3], arrays["targets"][..., 3], arrays["normals"][..., 2] = 64, 192, 255, -127
    said = []
    config = replace(QUICK, steps=60, learning_rate=2e-2)
    assert train_timed(people, config, tmp_path / "weights.safetensors", 60, report=said.append) == 60
    assert said[0].loss > 0.1 and said[-1].loss < 0.5 * said[0].loss
    assert [p.step for p in said] == [25, 50, 60] and said[0].people == 4
    assert said[0].rate > said[-1].rate
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"step": "60", "people": "4"}


def test_time_ends_it(people, tmp_path):
    assert train_timed(people, replace(QUICK, steps=10**6), tmp_path / "weights.safetensors", 1e-6) == 25


@pytest.mark.parametrize("task", ["regression", "diffusion"])
def test_it_begins_with_the_weights_it_is_given(people, tmp_path, task):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    train_timed(people, replace(QUICK, steps=2), first, 60)
    train_timed(people, replace(QUICK, task=task, steps=1, learning_rate=0.0, weight_decay=0.0), second, 60, start=first)
    a, b = load_file(first), load_file(second)
    assert set(a) == set(SmallPriorNetwork(TINY).state_dict()) and all(torch.allclose(a[name], b[name]) for name in a)


def test_nobody_to_learn_from(tmp_path):
    with pytest.raises(InputError, match="holds no people; make them with scripts/train_small_prior.py people"):
        train_timed(ResidentPeople(tmp_path, 4, CPU), QUICK, tmp_path / "weights.safetensors", 1)


def test_a_loss_that_is_not_finite_ends_it(people, tmp_path):
    with pytest.raises(RuntimeError, match="step 25: the loss is (nan|inf); try a smaller learning rate"):
        train_timed(people, replace(QUICK, learning_rate=1e30), tmp_path / "weights.safetensors", 60)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("task", ["regression", "diffusion"])
def test_all_of_a_step_is_on_the_device(people_folder, monkeypatch, task):
    """A tensor left on the processor does not go with "meta" ones."""
    adamw, meta = torch.optim.AdamW, torch.device("meta")
    monkeypatch.setattr(timed.torch.optim, "AdamW", lambda p, lr, **_: adamw(p, lr, foreach=False))  # fused ones know no "meta"
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    people = ResidentPeople(people_folder, 4, meta)
    people.refresh()
    stepper = timed._Stepper(people, replace(QUICK, task=task), None, True)
    draws = draw_batches(torch.Generator().manual_seed(0), 4, 2, 2, 2).to(meta)
    for k in range(2):
        stepper.take(draws.at(k), 1e-3, k)
    assert stepper.loss_sum.device == meta and all(p.grad.device == meta for p in stepper.network.parameters())
    with pytest.raises(RuntimeError, match="expected device"):
        stepper.people.batch(stepper.draw).fill + torch.ones(2, 2, 3, 16, 16)
