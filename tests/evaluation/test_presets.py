"""What the presets are, and what is said where something for one is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gafcore.diffusion.small.prior import save_prior
from gafcore.errors import InputError, MissingError
from gafcore.evaluation.presets import PRESETS, TABLE_3, PriorSources, check_presets, described, prior_of, settings, why_not
from gafcore.fitting import PseudoConfig, PseudoTruths, pipeline_prior
from tests.cases.small_prior import TINY, woken

NOTHING = PriorSources()


def small(path, *, condition="rig", diffusion=True):
    weights = {"regression": woken(seed=1).state_dict()} | ({"diffusion": woken(seed=2).state_dict()} if diffusion else {})
    save_prior(path, weights, replace(TINY, condition=condition), {})
    return str(path)


def pipeline(path, *, condition="normals", upsampler=True):
    """As much of a pipeline's folder as is looked at before it is loaded."""
    (path / "unet").mkdir(parents=True)
    index = {"upsampler": ["gafcore.diffusion.upsampler", "LatentUpsampler"] if upsampler else [None, None]}
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "unet" / "config.json").write_text(json.dumps({"condition": condition}))
    return str(path)


def test_render_and_pipelines_have_the_papers_settings():
    """A set at every iteration, as heavy as the picture, in one sum with it to the end (GAF, section 4.2)."""
    paper = PRESETS["render"].small
    assert (paper.prior_start, paper.prior_levels, paper.refresh_every) == ("render", (0.02, 0.98), 1)
    assert (paper.prior_weight, paper.prior_yields, paper.prior_fades, paper.prior_until) == (1, 0, 1, 1)
    assert {PRESETS[name].pipeline for name in ("pretrained-sd", "personalised-sd", "pose", "no-upsampler", "full")} == {paper}
    assert not PRESETS["no-upsampler"].upsample and PRESETS["full"].upsample


def test_score_distillation_has_the_weight_of_the_documented_table():
    made = PRESETS["sds"].small
    assert (made.prior_start, made.prior_weight, made.prior_yields, made.prior_fades) == ("sds", 60, 4, 0.5)
    assert made.prior_trust == PRESETS["render"].small.prior_trust == "full"
    assert PRESETS["full"].small == PRESETS["regression"].small == PseudoConfig() and settings("none", NOTHING) is None


def test_what_is_missing_is_named():
    reasons = {name: why_not(name, NOTHING) for name in TABLE_3}
    assert reasons == {
        "none": None,
        "pretrained-sd": "needs --sd FOLDER --controlnet FOLDER",
        "personalised-sd": "needs --personalised-sd FOLDER --controlnet FOLDER",
        "sds": None,
        "pose": "needs --pose-prior PATH",
        "no-upsampler": "a small prior has no upsampler to leave out: needs --prior FOLDER of a multi-view pipeline that has one",
        "full": None,
    }
    assert why_not("pretrained-sd", PriorSources(controlnet=".")) == "needs --sd FOLDER"
    assert why_not("full", PriorSources(prior="none")) == "needs --prior"


def test_small_priors(tmp_path):
    bare = PriorSources(prior=small(tmp_path / "bare.safetensors", diffusion=False))
    assert why_not("full", bare) is None
    assert why_not("sds", bare) == "this prior holds a regression only: needs one whose diffusion was trained too"
    with pytest.raises(MissingError, match=r"nowhere.safetensors: no such file"):
        why_not("full", PriorSources(prior=str(tmp_path / "nowhere.safetensors")))


def test_pipelines(tmp_path):
    pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    with_one = PriorSources(prior=pipeline(tmp_path / "a"))
    without = PriorSources(prior=pipeline(tmp_path / "b", upsampler=False))
    assert why_not("no-upsampler", with_one) is None and why_not("full", without) is None
    assert why_not("no-upsampler", without).startswith("this pipeline has no upsampler to leave out")
    assert why_not("refined", with_one).startswith("a pipeline has no regression to start from")
    assert settings("full", with_one) == PRESETS["render"].pipeline


def test_a_pose_prior_is_conditioned_on_poses(tmp_path):
    right = PriorSources(pose_prior=small(tmp_path / "pose.safetensors", condition="pose"))
    pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    assert why_not("pose", right) is None and settings("pose", right) == PseudoConfig(prior_trust="full")
    assert why_not("pose", PriorSources(pose_prior=pipeline(tmp_path / "p", condition="pose"))) is None
    for wrong in (small(tmp_path / "rig.safetensors"), pipeline(tmp_path / "n")):
        with pytest.raises(InputError, match=r"its condition is '(rig|normals)'; expected one that was trained with the condition 'pose'"):
            why_not("pose", PriorSources(pose_prior=wrong))


def test_a_folder_that_was_given_must_be_whole(tmp_path):
    pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    with pytest.raises(MissingError, match="nowhere: no such folder; a Stable Diffusion"):
        why_not("pretrained-sd", PriorSources(sd=tmp_path / "nowhere", controlnet=tmp_path))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("none", "fll"), r"unknown presets \['fll'\]; known are \['none'"),
        ((), "no preset"),
        (("none", "none"), r"twice: \['none'\]"),
    ],
)
def test_names(names, said):
    with pytest.raises(InputError, match=said):
        check_presets(names)


def test_priors_are_made_anew_with_their_settings(tmp_path):
    sources = PriorSources(prior=small(tmp_path / "small.safetensors"), refresh_every=3)
    made = prior_of("full", sources)
    assert isinstance(made, PseudoTruths) and made.config == PseudoConfig(refresh_every=3) and made.state() == {}
    assert prior_of("full", sources) is not made and prior_of("none", sources) is None


def test_numbers_that_cannot_be():
    with pytest.raises(InputError, match="refresh_every must be at least 1, got 0"):
        PriorSources(refresh_every=0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="sd_guidance must be 0 or more, got"):
            PriorSources(sd_guidance=wrong)


def test_without_the_extra_it_is_said_before_anything_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline_prior, "find_spec", lambda name: None)
    folder = pipeline(tmp_path / "p", condition="pose")
    cases = {"full": dict(prior=folder), "pose": dict(pose_prior=folder), "pretrained-sd": dict(sd=tmp_path, controlnet=tmp_path)}
    for name, given in cases.items():
        with pytest.raises(MissingError, match=r"is read by diffusers, which needs pip install 'gafcore\[diffusion\]'"):
            why_not(name, PriorSources(**given))


def test_stable_diffusion_with_its_prompt(tmp_path):
    pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    from tests.diffusion.tiny_sd import save_controlnet, save_sd

    folders = dict(sd=save_sd(tmp_path / "sd"), personalised_sd=save_sd(tmp_path / "own", seed=5))
    sources = PriorSources(**folders, controlnet=save_controlnet(tmp_path / "control", folders["sd"]), personalised_prompt="a person")
    assert [why_not(name, sources) for name in ("pretrained-sd", "personalised-sd")] == [None, None]
    general, own = (prior_of(name, sources) for name in ("pretrained-sd", "personalised-sd"))
    assert general._networks.empty is None and own._networks.empty is not None
    assert not torch.equal(general._networks.unet.conv_in.weight, own._networks.unet.conv_in.weight)
    assert described("pretrained-sd", sources)["prompt"] == "" and described("personalised-sd", sources)["prompt"] == "a person"
    json.dumps(described("personalised-sd", sources))
