"""scripts/train_small_prior.py: what its stages hand to one another."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gafcore.diffusion.small.network import SmallPriorNetwork
from gafcore.diffusion.small.prior import load_prior

PATH = Path(__file__).resolve().parents[2] / "scripts" / "train_small_prior.py"
spec = importlib.util.spec_from_file_location("train_small_prior", PATH)
assert spec is not None and spec.loader is not None
script = sys.modules["train_small_prior"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def test_what_was_not_trained_is_the_shipped_files_and_says_so(tmp_path, capsys):
    torch.manual_seed(0)
    mine, weights = SmallPriorNetwork().state_dict(), tmp_path / "regression" / "weights.safetensors"
    weights.parent.mkdir()
    save_file(mine, weights, {"step": "7", "people": "3"})
    script.main(script.Make("export", tmp_path, out=tmp_path / "prior.safetensors"))
    made, shipped = load_prior(tmp_path / "prior.safetensors"), load_prior()
    assert torch.equal(made.regression.role, mine["role"].half().float())
    assert torch.equal(made.diffusion.role, shipped.diffusion.role)
    said = capsys.readouterr().out
    assert "'step': '7'" in said and "'diffusion': 'not trained: of the file before'" in said
    assert set(load_file(tmp_path / "prior.safetensors")) >= {"regression.role", "diffusion.role"}


def test_another_condition_has_no_diffusion_until_one_is_trained(tmp_path, capsys):
    weights = tmp_path / "regression" / "weights.safetensors"
    weights.parent.mkdir()
    save_file(SmallPriorNetwork().state_dict(), weights, {"step": "7"})
    script.main(script.Make("export", tmp_path, out=tmp_path / "prior.safetensors", condition="pose"))
    made = load_prior(tmp_path / "prior.safetensors")
    assert (made.condition, made.diffusion) == ("pose", None)
    assert "'diffusion': 'not trained'" in capsys.readouterr().out


def test_training_begins_with_a_priors_weights(tmp_path):
    args = script.Make("diffusion", tmp_path / "work", init=Path("shipped"))
    assert torch.equal(load_file(script._start(args))["role"], load_prior().diffusion.role)
    start = script._start(script.Make("regression", tmp_path / "work", init=Path("shipped")))
    SmallPriorNetwork().load_state_dict(load_file(start))
    with pytest.raises(SystemExit, match="shipped: has no regression of condition pose and the usual sizes"):
        script._start(script.Make("regression", tmp_path, init=Path("shipped"), condition="pose"))
    assert script._start(script.Make("regression", tmp_path)) is None
    assert script._start(script.Make("diffusion", tmp_path)) == tmp_path / "regression" / "weights.safetensors"


def test_too_few_people_in_time(tmp_path):
    with pytest.raises(SystemExit, match="only 0 of 5 people in 0 minutes"):
        script.main(script.Make("regression", tmp_path, minutes=0.0, wait_people=5))
