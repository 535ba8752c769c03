"""A fit with Stable Diffusion under a ControlNet, at a size for tests."""

from __future__ import annotations

import os
import signal

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.errors import InputError, MissingError
from gafcore.fitting import FitConfig, Interrupted, PseudoConfig, fit
from gafcore.fitting import pipeline_prior as module
from gafcore.fitting.controlnet_prior import make_controlnet_prior
from tests.cases.ball import ball_capture
from tests.diffusion.tiny_sd import save_controlnet, save_sd

QUICK = FitConfig(iterations=4, checkpoint_every=100)
OFTEN = PseudoConfig(refresh_every=2, prior_start="render", prior_levels=(0.02, 0.1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd")
    return save_sd(root / "sd"), save_controlnet(root / "controlnet", root / "sd")


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


@pytest.mark.parametrize("start", ["render", "sds"])
def test_same_seed_same_bits_and_another_result_than_without(capture, folders, start):
    config = PseudoConfig(refresh_every=2, prior_start=start, prior_levels=(0.02, 0.1))
    a, b = (fit(capture, QUICK, prior=make_controlnet_prior(*folders, config), progress=False) for _ in range(2))
    free = fit(capture, QUICK, progress=False)
    assert torch.equal(a.avatar.sh, b.avatar.sh) and not torch.equal(a.avatar.sh, free.avatar.sh)


def test_it_is_asked_on_the_cpu(folders):
    """Its networks chose their device when they were loaded."""
    prior = make_controlnet_prior(*folders, OFTEN)
    assert prior.move_to(torch.device("meta")) == prior._device == torch.device("cpu")
    assert prior._networks.unet.device.type != "meta"


def test_interrupted_and_resumed_equals_uninterrupted(capture, folders, tmp_path):
    def stop(iteration, _):
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = fit(capture, QUICK, prior=make_controlnet_prior(*folders, OFTEN), progress=False)
    with pytest.raises(Interrupted):
        fit(capture, QUICK, prior=make_controlnet_prior(*folders, OFTEN), out=tmp_path / "a", callback=stop, progress=False)
    again = fit(capture, QUICK, prior=make_controlnet_prior(*folders, OFTEN), out=tmp_path / "a", resume=True, progress=False)
    assert torch.equal(again.avatar.sh, whole.avatar.sh)


def test_identity_follows_weights_prompt_and_settings(folders, tmp_path):
    first = make_controlnet_prior(*folders, OFTEN).identity
    other = save_controlnet(tmp_path / "other", folders[0], seed=9)
    changed = [
        make_controlnet_prior(folders[0], other, OFTEN),
        make_controlnet_prior(*folders, OFTEN, "a person"),
        make_controlnet_prior(*folders, OFTEN, axes="right_up_back"),
        make_controlnet_prior(*folders, PseudoConfig(prior_start="sds")),
    ]
    identities = {first, *(prior.identity for prior in changed)}
    assert len(identities) == 5 and make_controlnet_prior(*folders, OFTEN).identity == first


def test_what_it_cannot_do_is_said(folders, monkeypatch):
    with pytest.raises(InputError, match="prior_start must be render or sds, got 'regression'"):
        make_controlnet_prior(*folders, PseudoConfig())
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"is read by diffusers, which needs pip install 'gafcore\[diffusion\]'"):
        make_controlnet_prior(*folders, OFTEN)
