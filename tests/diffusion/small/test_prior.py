"""The prior as a file and as a sampler."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from gafcore.diffusion.small.people import make_person
from gafcore.diffusion.small.prior import SmallPrior, load_prior, save_prior
from gafcore.diffusion.small.store import make_set
from gafcore.errors import InputError, MissingError
from gafcore.rigs import load_rig
from tests.cases.small_prior import TINY, tiny_prior, woken


@pytest.fixture
def prior() -> SmallPrior:
    return tiny_prior()


@pytest.fixture
def views():
    g = torch.Generator().manual_seed(4)
    return dict(
        image=torch.rand(3, 16, 16, generator=g),
        normal_maps=torch.rand(2, 3, 16, 16, generator=g) * 2 - 1,
        renders=torch.rand(2, 3, 16, 16, generator=g),
        warp=torch.rand(2, 3, 16, 16, generator=g),
        visibility=torch.ones(2, 16, 16),
    )


def weights(prior: SmallPrior):
    return {"regression": prior.regression.state_dict(), "diffusion": prior.diffusion.state_dict()}


def test_a_file_holds_both_networks_in_half_precision(prior, tmp_path):
    path = tmp_path / "p.safetensors"
    save_prior(path, weights(prior), TINY, {"steps": 3})
    loaded = load_prior(path)
    for a, b in ((prior.regression, loaded.regression), (prior.diffusion, loaded.diffusion)):
        assert all(torch.equal(x.half().float(), b.state_dict()[name]) for name, x in a.state_dict().items())
    assert path.stat().st_size < 2.2 * sum(x.numel() for net in weights(prior).values() for x in net.values()) + 10_000
    assert (loaded.size, loaded.n_views) == (16, 2)


def test_what_is_no_prior(prior, tmp_path):
    with pytest.raises(MissingError, match=r"a\.safetensors: no such file; a prior is what scripts/train_small_prior\.py writes"):
        load_prior(tmp_path / "a.safetensors")
    bad = tmp_path / "b.safetensors"
    bad.write_bytes(b"\x07" * 40)
    with pytest.raises(InputError, match="is not a small prior"):
        load_prior(bad)
    save_file({"x": torch.zeros(2)}, bad)
    with pytest.raises(InputError, match="is not a small prior"):
        load_prior(bad)
    incomplete = weights(prior)
    incomplete["regression"] = {k: v for k, v in incomplete["regression"].items() if k != "place"}
    save_prior(bad, incomplete, TINY, {})
    with pytest.raises(InputError, match="place"):
        load_prior(bad)


def test_the_condition_is_one_that_there_is(prior, tmp_path):
    path = tmp_path / "p.safetensors"
    save_prior(path, weights(prior), replace(TINY, condition="moon"), {})
    with pytest.raises(InputError, match=r"p\.safetensors: .*network\.condition must be one of rig, pose, got 'moon'"):
        load_prior(path)


def test_a_prior_of_poses_refuses_normals_and_warp(views):
    config = replace(TINY, condition="pose")
    with pytest.raises(InputError, match="this prior's condition is 'pose': it takes neither normals nor warp"):
        SmallPrior(woken(config), woken(config))(**views)


def test_a_file_without_diffusion_regresses_only(prior, tmp_path):
    path = tmp_path / "p.safetensors"
    save_prior(path, {"regression": prior.regression.state_dict()}, TINY, {})
    loaded = load_prior(path).to("cpu")
    given = (torch.zeros(1, 6, 16, 16), torch.zeros(1, 2, 3, 16, 16), torch.zeros(1, 2, 4, 16, 16))
    assert loaded.diffusion is None and loaded.regress(*given).shape == (1, 2, 3, 16, 16)
    with pytest.raises(InputError, match="this prior holds a regression only"):
        loaded.denoise(*given)


def test_sampling_is_a_function_of_the_generator(prior, views):
    draw = lambda seed, **more: prior(**{**views, **more}, generator=torch.Generator().manual_seed(seed))[0]  # noqa: E731
    a, b, c = draw(0, strength=0.5), draw(0, strength=0.5), draw(1, strength=0.5)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (2, 3, 16, 16) and float(a.min()) >= 0 and float(a.max()) <= 1


def test_full_strength_does_not_see_the_renders_and_less_does(prior, views):
    def draw(renders, strength):
        return prior(**{**views, "renders": renders}, strength=strength, generator=torch.Generator().manual_seed(0))[0]

    other = 1 - views["renders"]
    assert torch.equal(draw(views["renders"], 1.0), draw(other, 1.0))
    assert not torch.equal(draw(views["renders"], 0.3), draw(other, 0.3))


def test_guidance_moves_away_from_the_answer_without_the_picture(prior, views):
    """One step: guided = bare + g (seen - bare), so g = 1 is the plain answer and the answer is linear in g before clipping."""
    draw = lambda g: prior(**views, strength=0.5, num_inference_steps=2, guidance_scale=g, generator=torch.Generator().manual_seed(0))[0]  # noqa: E731
    plain = prior(**views, strength=0.5, num_inference_steps=2, generator=torch.Generator().manual_seed(0))[0]
    assert torch.equal(draw(1.0), plain) and not torch.equal(draw(2.0), plain)
    inside = (draw(0.5) > 0.02) & (draw(0.5) < 0.98) & (draw(0.0) > 0.02) & (draw(0.0) < 0.98) & (plain > 0.02) & (plain < 0.98)
    assert bool(inside.any())
    torch.testing.assert_close(draw(0.5)[inside], (0.5 * draw(0.0) + 0.5 * plain)[inside], atol=1e-4, rtol=1e-3)


def test_the_regression_ignores_noise(prior, views):
    fill = 2 * views["warp"][None] - 1
    conditions = torch.cat([views["visibility"][:, None], views["normal_maps"]], 1)[None]
    image = torch.zeros(1, 6, 16, 16)
    assert torch.equal(prior.regress(image, fill, conditions), prior.regress(image, fill, conditions))
    assert not torch.equal(prior.regress(image, fill, conditions), fill)


def test_wrong_arguments(prior, views):
    with pytest.raises(ValueError, match=r"warp must be \[2, 3, 16, 16\], got \[1, 3, 16, 16\]"):
        prior(**{**views, "warp": views["warp"][:1]})
    with pytest.raises(ValueError, match="needs warp and visibility"):
        prior(**{**views, "warp": None})
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\], got 1.5"):
        prior(**views, strength=1.5)
    with pytest.raises(ValueError, match="gives a tuple of tensors"):
        prior(**views, output_type="pil")


def test_the_shipped_prior_beats_what_needs_no_learning():
    """On a person that was neither in training nor in the model card's tables: nearer to the truth than warp and fill, by 1 dB or more."""
    person = make_person(load_rig("procedural"), 3_000_000)
    made = make_set({name: getattr(person, name)[None] for name in person.names()}, 0, [0, 2, 5, 7], torch.ones(3))
    prior = load_prior()
    assert (prior.size, prior.n_views) == (64, 4)
    answer = prior.regress(made.image, made.fill, made.conditions)
    errors = [float((x - made.targets).square().mean()) for x in (answer, made.fill)]
    assert errors[0] < 0.79 * errors[1]
