"""A fit with a full-size prior's pipeline, at a size for tests."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from gafcore.errors import InputError
from gafcore.fitting import FitConfig, Interrupted, PseudoConfig, fit, make_prior
from tests.cases.ball import ball_capture
from tests.diffusion.conftest import tiny_parts, tiny_unet  # noqa: F401 - fixtures

QUICK = FitConfig(iterations=5, checkpoint_every=100)
OFTEN = PseudoConfig(refresh_every=2, prior_views=2, prior_start="render", prior_levels=(0.02, 0.1))


@pytest.fixture
def folder(tiny_parts, tmp_path):  # noqa: F811
    """A pipeline for 16 x 16 pictures with an upsampler, saved."""
    from gafcore.diffusion.pipeline import MultiViewHeadPipeline

    MultiViewHeadPipeline(**tiny_parts()).save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


@pytest.mark.parametrize("start", ["render", "sds"])
def test_same_seed_same_bits_and_another_result_than_without(capture, folder, start):
    config = PseudoConfig(refresh_every=2, prior_views=2, prior_start=start, prior_levels=(0.02, 0.1))
    a, b = (fit(capture, QUICK, prior=make_prior(str(folder), config), progress=False) for _ in range(2))
    free = fit(capture, QUICK, progress=False)
    assert torch.equal(a.avatar.sh, b.avatar.sh) and not torch.equal(a.avatar.sh, free.avatar.sh)


def test_it_is_asked_on_the_cpu(folder):
    """Its networks chose their device when they were loaded."""
    prior = make_prior(str(folder), OFTEN)
    assert prior.move_to(torch.device("meta")) == prior._device == torch.device("cpu")
    assert prior._targets.pipeline.unet.device.type != "meta"


def test_interrupted_and_resumed_equals_uninterrupted(capture, folder, tmp_path):
    def stop(iteration, _):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = fit(capture, QUICK, prior=make_prior(str(folder), OFTEN), progress=False)
    with pytest.raises(Interrupted):
        fit(capture, QUICK, prior=make_prior(str(folder), OFTEN), out=tmp_path / "a", callback=stop, progress=False)
    again = fit(capture, QUICK, prior=make_prior(str(folder), OFTEN), out=tmp_path / "a", resume=True, progress=False)
    assert torch.equal(again.avatar.sh, whole.avatar.sh)


def test_what_it_cannot_do_is_said(folder, tmp_path):
    with pytest.raises(InputError, match="prior_start must be render or sds, got 'regression'"):
        make_prior(str(folder), PseudoConfig(prior_start="regression"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="no readable pipeline"):
        make_prior(str(tmp_path / "broken"), OFTEN)


def test_without_the_upsampler_views_are_decoded_as_they_are_and_resized(capture, folder):
    """As many pixels as with it, but no more detail: a view averaged over 2 x 2 pixels and enlarged again is nearly itself."""
    made, roughness = {}, {}
    for upsample in (True, False):
        prior = make_prior(str(folder), OFTEN, upsample=upsample)
        fit(capture, QUICK, prior=prior, progress=False)
        made[upsample] = {name: x[0] for name, x in prior.state().items()}  # of the first iteration
        views = made[upsample]["targets"].permute(0, 3, 1, 2).float()
        small = torch.nn.functional.avg_pool2d(views, 2)
        roughness[upsample] = float((torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear") - views).abs().mean())
    assert made[True]["targets"].shape == made[False]["targets"].shape and int(made[False]["side"]) == 32
    assert torch.equal(made[True]["Ks"], made[False]["Ks"]) and not torch.equal(made[True]["targets"], made[False]["targets"])
    assert roughness[False] < 0.5 * roughness[True]
    identities = {make_prior(str(folder), OFTEN, upsample=u).identity for u in (True, False)}
    assert len(identities) == 2
