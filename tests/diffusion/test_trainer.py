"""The training loop: it learns, resumes to the same numbers, gives the same gradient however a batch is divided."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.diffusion import train_state
from gafcore.diffusion.randomness import epoch_order
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.trainer import DivergedError
from gafcore.errors import InputError, MissingError
from tests.diffusion import toy


def weights(made):
    return {n: p.detach().clone() for n, p in made.state.model.named_parameters()}


@pytest.mark.parametrize("model", ["multiview", "upsampler"])
def test_it_learns(model):
    made = toy.trainer(model=model, steps=40, lr=2e-3, batch=6)
    losses = made.run().losses
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_resumed_equals_uninterrupted(tmp_path):
    whole = toy.trainer(tmp_path / "whole")
    losses = whole.run().losses

    class Stop(Exception):
        pass

    def stop(step, loss):
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        toy.trainer(tmp_path / "cut").run(stop)
    again = toy.trainer(tmp_path / "cut")
    assert again.resume().name == "step-00000004"
    assert again.run().losses == losses
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
    assert all(torch.equal(a, b) for a, b in zip(whole.state.ema.shadow_params, again.state.ema.shadow_params, strict=True))


def test_checkpoints_are_limited_and_readable(tmp_path):
    made = toy.trainer(tmp_path, checkpoint_limit=2)
    made.run()
    kept = train_state.checkpoints(tmp_path / "checkpoints")
    assert [p.name for p in kept] == ["step-00000004", "step-00000006"]
    state = json.loads((kept[-1] / "state.json").read_text())
    assert state["step"] == 6 and state["losses"] == made.state.losses and state["config"]["lr"] == 1e-3


def test_resuming_with_other_settings_or_damage_says_so(tmp_path):
    toy.trainer(tmp_path, steps=2).run()
    with pytest.raises(InputError, match=r"lr was 0\.001, is 0\.01"):
        toy.trainer(tmp_path, lr=1e-2).resume()
    longer = toy.trainer(tmp_path, steps=3)
    longer.resume()
    assert longer.run().step == 3
    (tmp_path / "checkpoints" / "step-00000003" / "ema.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(InputError, match="damaged, or of another network"):
        toy.trainer(tmp_path, steps=4).resume()
    with pytest.raises(MissingError, match="no checkpoint"):
        toy.trainer(tmp_path / "empty").resume()


def gradients(**config):
    made = toy.trainer(**config)
    loss = made.gradients(next(made._steps()))
    return loss, {n: p.grad for n, p in made.state.model.named_parameters() if p.grad is not None}


def check_equal(a, b):
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    assert a[1].keys() == b[1].keys() and len(a[1]) > 50
    for name, value in a[1].items():
        torch.testing.assert_close(b[1][name], value, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("change", [dict(micro_batch=2), dict(micro_batch=1, gradient_checkpointing=True)])
def test_accumulation_and_checkpointing_do_not_change_the_gradient(change):
    check_equal(gradients(), gradients(**change))


def test_two_processes_give_the_gradient_of_one_with_twice_the_batch(tmp_path):
    """Two processes with two samples each (in the second case one by one, with checkpointing) against one with four."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    given = [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *given]), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    command = [*launcher, "-m", "tests.diffusion.toy", str(tmp_path / "out.pt")]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    made = torch.load(tmp_path / "out.pt", weights_only=True)
    for mode, _ in toy.CASES:
        assert made[mode]["processes"] == 2
        check_equal(gradients(unet={"input_mode": mode}), (made[mode]["loss"], made[mode]["gradients"]))


def test_bfloat16_stays_near_single_precision_and_leaves_single_weights():
    plain, half = toy.trainer(steps=3), toy.trainer(steps=3, precision="bf16")
    assert half.run().losses == pytest.approx(plain.run().losses, rel=0.05)
    batch = toy.ToySamples()[0]
    averaged = half.averaged()
    assert all(p.dtype == torch.float32 for p in averaged.parameters())
    assert type(averaged).forward is averaged.forward.__func__
    with torch.no_grad():
        from gafcore.diffusion.unet import ViewCondition

        condition = ViewCondition(batch.image_latents[None], batch.clip[None], batch.channels[None], batch.viewmats[None])
        args = (batch.latents[None], torch.tensor(400), condition)
        torch.testing.assert_close(averaged(*args), plain.averaged()(*args), atol=0.02, rtol=0.05)


def test_a_loss_that_is_no_number_stops(monkeypatch):
    made = toy.trainer()
    monkeypatch.setattr(type(made.parts.objective), "__call__", lambda *a: torch.full((4,), float("nan"), requires_grad=True))
    with pytest.raises(DivergedError, match="step 1: the loss is nan"):
        made.run()


def test_every_sample_once_an_epoch():
    order = epoch_order(3, 7, 0, 21)
    assert [sorted(order[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]
    assert epoch_order(3, 7, 5, 9) == order[5:14]


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="multiple of the number of processes, got 64 and 3"):
        TrainConfig().share(3)
    with pytest.raises(InputError, match="micro_batch must divide"):
        TrainConfig(micro_batch=5).share(2)
    for wrong in (dict(steps=0), dict(lr=0.0), dict(drop=1.0), dict(n_validation=0)):
        with pytest.raises(InputError, match=next(iter(wrong))):
            TrainConfig(**wrong)
