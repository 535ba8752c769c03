"""The multi-view UNet: its variants, what may and may not influence what, dropping, saving, gradient checkpointing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

VARIANTS = [
    dict(condition="normals", input_mode="frame"),
    dict(condition="normals", input_mode="reference"),
    dict(condition="warp", input_mode="frame", image_embedding="resampler"),
    dict(condition="pose", input_mode="reference", attention="2d"),
    dict(condition="none", input_mode="frame", attention="2d"),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v.values()))
def test_saved_and_loaded_bit_by_bit(variant, tiny_unet, view_inputs, tmp_path):
    model = tiny_unet(**variant)
    noisy, t, condition = view_inputs(model)
    with torch.no_grad():
        out = model(noisy, t, condition)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert torch.equal(again(noisy, t, condition), out)
    assert out.shape == noisy.shape and bool(out.isfinite().all())
    tuples = {name: tuple(x) if isinstance(x, list) else x for name, x in again.config.items()}
    assert all(tuples[name] == value for name, value in model.config.items() if not name.startswith("_"))


def _influence(model, noisy, t, condition, new_noisy=None, **changed):
    """[B, N]: how far each view moves when the condition or the noisy latents change."""
    new_noisy = noisy if new_noisy is None else new_noisy
    with torch.no_grad():
        moved = model(new_noisy, t, replace(condition, **changed)) - model(noisy, t, condition)
    return moved.abs().amax(dim=(2, 3, 4))


@pytest.mark.parametrize("mode", ["frame", "reference"])
@pytest.mark.parametrize("attention", ["3d", "2d"])
def test_who_sees_whom(mode, attention, tiny_unet, view_inputs):
    model = tiny_unet(input_mode=mode, attention=attention)
    noisy, t, condition = view_inputs(model)
    other = noisy.clone()
    other[0, 1] += 1
    moved = _influence(model, noisy, t, condition, other)
    assert float(moved[0, 1]) > 1e-3
    assert float(moved[1].max()) == 0  # another head's views never matter
    neighbours = moved[0, [0, 2, 3]]
    assert bool((neighbours > 1e-5).all()) if attention == "3d" else float(neighbours.max()) == 0
    picture = condition.image_latents.clone()
    picture[0] += 1
    moved = _influence(model, noisy, t, condition, image_latents=picture)
    assert bool((moved[0] > 1e-5).all()) and float(moved[1].max()) == 0


@pytest.mark.parametrize("mode", ["frame", "reference"])
def test_a_dropped_picture_has_no_influence_and_normals_keep_theirs(mode, tiny_unet, view_inputs):
    model = tiny_unet(input_mode=mode)
    noisy, t, condition = view_inputs(model)
    dropped = replace(condition, keep=torch.tensor([False, True]))
    moved = _influence(model, noisy, t, dropped, image_latents=condition.image_latents + 1, clip=condition.clip + 1)
    assert float(moved[0].max()) == 0 and float(moved[1].min()) > 1e-5
    moved = _influence(model, noisy, t, dropped, channels=condition.channels + 1)
    assert float(moved.min()) > 1e-3


def test_cached_references_equal_those_made_on_the_way(tiny_unet, view_inputs):
    model = tiny_unet(input_mode="reference")
    noisy, t, condition = view_inputs(model)
    with torch.no_grad():
        references = {}
        first = model(noisy, t, condition, references)
        assert len(references) > 0
        assert torch.equal(first, model(noisy, t, condition, references)) and torch.equal(first, model(noisy, t, condition))
        model(noisy, t, replace(condition, image_latents=condition.image_latents + 1), references)  # the cache is what counts now
        assert torch.equal(first, model(noisy, t, replace(condition, image_latents=condition.image_latents + 1), references))


@pytest.mark.parametrize("mode", ["frame", "reference"])
def test_both_branches_of_guidance_in_one_call(mode, tiny_unet, view_inputs):
    model = tiny_unet(input_mode=mode)
    noisy, t, condition = view_inputs(model)
    with torch.no_grad():
        out = model(noisy, t, condition, {}, both=True)
        kept, gone = model(noisy, t, condition), model(noisy, t, replace(condition, keep=torch.tensor([False, False])))
    torch.testing.assert_close(out, torch.cat([gone, kept]), atol=1e-5, rtol=1e-5)


def test_references_do_not_depend_on_time(tiny_unet, view_inputs):
    model = tiny_unet(input_mode="reference")
    _, _, condition = view_inputs(model)
    with torch.no_grad():
        references = model.make_references(condition)
    self_attention = [n for n in model.unet.attn_processors if "attn1" in n]
    assert sorted(references) == sorted(self_attention)


@pytest.mark.parametrize("mode", ["frame", "reference"])
def test_gradient_checkpointing_gives_the_same_gradients(mode, tiny_unet, view_inputs):
    model = tiny_unet(input_mode=mode).train()
    noisy, t, condition = view_inputs(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(noisy, t, condition).square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 50
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_views_may_be_more_or_fewer_than_in_training(tiny_unet, view_inputs):
    model = tiny_unet()
    noisy, t, condition = view_inputs(model)
    with torch.no_grad():
        out = model(noisy[:, :2], t, replace(condition, channels=condition.channels[:, :2]))
    assert out.shape == noisy[:, :2].shape


def test_wrong_input_says_what_is_wrong(tiny_unet, view_inputs):
    model = tiny_unet()
    noisy, t, condition = view_inputs(model)
    with pytest.raises(ValueError, match=r"conditioned on normals: channels must be \[2, 4, 4, 8, 8\], got None"):
        model(noisy, t, replace(condition, channels=None))
    with pytest.raises(ValueError, match=r"must be \[B, N, 4, h, w\]"):
        model(noisy[0], t, condition)
    with pytest.raises(ValueError, match="image_latents must be"):
        model(noisy, t, replace(condition, image_latents=condition.image_latents[:1]))
    with pytest.raises(ValueError, match="condition must be one of"):
        tiny_unet(condition="depth")
    with pytest.raises(ValueError, match="input_mode must be one of frame, reference, got 'concat'"):
        tiny_unet(input_mode="concat")
    with pytest.raises(ValueError, match="multiple of head_dim"):
        tiny_unet(head_dim=24)


def test_default_sizes_are_stable_diffusion_2_1(monkeypatch):
    unet = pytest.importorskip("gafcore.diffusion.unet", reason="the extra `diffusion` is not installed")
    with torch.device("meta"):
        model = unet.MultiViewUNet()
    n_parameters = sum(p.numel() for p in model.unet.parameters())
    # SD 2.1's UNet has 865,910,724 parameters; four more input channels of a 3x3 convolution to 320 channels are ours.
    assert n_parameters == 865_910_724 + 4 * 320 * 9


def test_importing_gafcore_does_not_import_diffusers():
    import subprocess
    import sys

    heavy = "('diffusers', 'triton', 'transformers')"
    code = f"import gafcore, gafcore.diffusion, gafcore.attention, sys; print(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
