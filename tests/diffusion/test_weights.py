"""Tiny files in the layouts of Stable Diffusion and ImageDream, made here from scratch, into the multi-view UNet."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gafcore.errors import InputError, MissingError

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from gafcore.diffusion.weights import load_pretrained

WIDTHS, TIME, CONTEXT, HIDDEN = (32, 64), 128, 24, 16  # widths by level; 4 x the first; cross-attention; the resampler's heads x channels


def _norm(out, name, n):
    out[f"{name}.weight"], out[f"{name}.bias"] = torch.randn(n), torch.randn(n)


def _linear(out, name, n_in, n_out, bias=True, kernel=()):
    out[f"{name}.weight"] = torch.randn(n_out, n_in, *kernel)
    if bias:
        out[f"{name}.bias"] = torch.randn(n_out)


def _resnet(out, name, n_in, n_out):
    _norm(out, f"{name}.in_layers.0", n_in)
    _linear(out, f"{name}.in_layers.2", n_in, n_out, kernel=(3, 3))
    _linear(out, f"{name}.emb_layers.1", TIME, n_out)
    _norm(out, f"{name}.out_layers.0", n_out)
    _linear(out, f"{name}.out_layers.3", n_out, n_out, kernel=(3, 3))
    if n_in != n_out:
        _linear(out, f"{name}.skip_connection", n_in, n_out, kernel=(1, 1))


def _transformer(out, name, n, pictures):
    _norm(out, f"{name}.norm", n)
    _linear(out, f"{name}.proj_in", n, n)
    _linear(out, f"{name}.proj_out", n, n)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", n), ("attn2", CONTEXT)):
        _linear(out, f"{block}.{attention}.to_q", n, n, bias=False)
        _linear(out, f"{block}.{attention}.to_out.0", n, n)
        for part in ("to_k", "to_v", *(("to_k_ip", "to_v_ip") if pictures and attention == "attn2" else ())):
            _linear(out, f"{block}.{attention}.{part}", context, n, bias=False)
    _linear(out, f"{block}.ff.net.0.proj", n, 8 * n)
    _linear(out, f"{block}.ff.net.2", 4 * n, n)
    for i in (1, 2, 3):
        _norm(out, f"{block}.norm{i}", n)


def _image_embed(out):
    out["image_embed.latents"] = torch.randn(1, 3, CONTEXT)
    _linear(out, "image_embed.proj_in", 20, CONTEXT)
    _linear(out, "image_embed.proj_out", CONTEXT, CONTEXT)
    _norm(out, "image_embed.norm_out", CONTEXT)
    _norm(out, "image_embed.layers.0.0.norm1", CONTEXT)
    _norm(out, "image_embed.layers.0.0.norm2", CONTEXT)
    _linear(out, "image_embed.layers.0.0.to_q", CONTEXT, HIDDEN, bias=False)
    _linear(out, "image_embed.layers.0.0.to_kv", CONTEXT, 2 * HIDDEN, bias=False)
    _linear(out, "image_embed.layers.0.0.to_out", HIDDEN, CONTEXT, bias=False)
    _norm(out, "image_embed.layers.0.1.0", CONTEXT)
    _linear(out, "image_embed.layers.0.1.1", CONTEXT, 4 * CONTEXT, bias=False)
    _linear(out, "image_embed.layers.0.1.3", 4 * CONTEXT, CONTEXT, bias=False)


def ldm_unet(pictures: bool = False, camera: bool = False) -> dict[str, torch.Tensor]:
    """The original layout, written out for two levels of one layer, attention at the first: SD 2.1's, or MVDream's and ImageDream's."""
    torch.manual_seed(3)
    out: dict[str, torch.Tensor] = {}
    a, b = WIDTHS
    for name in ("time_embed", "camera_embed") if camera else ("time_embed",):
        _linear(out, f"{name}.0", a if name == "time_embed" else 16, TIME)
        _linear(out, f"{name}.2", TIME, TIME)
    _linear(out, "input_blocks.0.0", 4, a, kernel=(3, 3))
    _resnet(out, "input_blocks.1.0", a, a)
    _transformer(out, "input_blocks.1.1", a, pictures)
    _linear(out, "input_blocks.2.0.op", a, a, kernel=(3, 3))
    _resnet(out, "input_blocks.3.0", a, b)
    _resnet(out, "middle_block.0", b, b)
    _transformer(out, "middle_block.1", b, pictures)
    _resnet(out, "middle_block.2", b, b)
    _resnet(out, "output_blocks.0.0", b + b, b)
    _resnet(out, "output_blocks.1.0", b + a, b)
    _linear(out, "output_blocks.1.1.conv", b, b, kernel=(3, 3))
    _resnet(out, "output_blocks.2.0", b + a, a)
    _transformer(out, "output_blocks.2.1", a, pictures)
    _resnet(out, "output_blocks.3.0", a + a, a)
    _transformer(out, "output_blocks.3.1", a, pictures)
    _norm(out, "out.0", a)
    _linear(out, "out.2", a, 4, kernel=(3, 3))
    if pictures:
        _image_embed(out)
    return out


def _whole(unet):
    other = {"first_stage_model.encoder.conv_in.weight": torch.zeros(2), "cond_stage_model.model.ln_final.bias": torch.zeros(2)}
    return {f"model.diffusion_model.{k}": v for k, v in unet.items()} | other | {"betas": torch.zeros(3), "alphas_cumprod": torch.zeros(3)}


def _diffusers_oracle(unet):
    """diffusers' own conversion of the UNet's names."""
    whole = {f"model.diffusion_model.{k}": v for k, v in unet.items()}
    return convert_ldm_unet_checkpoint(whole, {"layers_per_block": 1})


def _check_unet(model, converted):
    state = model.unet.state_dict()
    assert len(converted) > 100
    for name, value in converted.items():
        if name == "conv_in.weight":
            assert torch.equal(state[name][:, :4], value) and not bool(state[name][:, 4:].any())
        else:
            assert torch.equal(state[name], value.reshape(state[name].shape)), name


def test_single_file_of_stable_diffusion(tiny_unet, tmp_path):
    unet = ldm_unet()
    save_file(_whole(unet), tmp_path / "sd.safetensors")
    model = tiny_unet()
    report = load_pretrained(model, tmp_path / "sd.safetensors")
    _check_unet(model, _diffusers_oracle(unet))
    assert set(report.loaded.values()) | set(report.unused) == set(_whole(unet))
    assert report.inflated == {"unet.conv_in.weight": "[32, 4, 3, 3] to [32, 8, 3, 3], zeros behind"}
    assert all(name.startswith("tokens.") for name in report.fresh) and len(report.fresh) == 4
    assert set(report.unused.values()) == {"not of the UNet"} and "not used: 4 (not of the UNet)" in report.summary()


def test_diffusers_folder_of_stable_diffusion(tiny_unet, tmp_path):
    converted = _diffusers_oracle(ldm_unet())
    (tmp_path / "unet").mkdir()
    save_file({k: v.contiguous() for k, v in converted.items()}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    model = tiny_unet(input_mode="reference")
    report = load_pretrained(model, tmp_path)
    _check_unet(model, converted)
    assert len(report.loaded) == len(converted) and not report.unused


@pytest.mark.parametrize("whole", [True, False])
def test_imagedream(whole, tiny_unet, tmp_path):
    unet = ldm_unet(pictures=True, camera=True)
    file = tmp_path / ("imagedream.pt" if whole else "diffusion_pytorch_model.safetensors")
    torch.save({"state_dict": _whole(unet)}, file) if whole else save_file(unet, file)
    model = tiny_unet(image_embedding="resampler", condition="pose")
    report = load_pretrained(model, file if whole else tmp_path)
    state = model.state_dict()
    assert not report.fresh and set(report.loaded) == set(state)
    block = "middle_block.1.transformer_blocks.0.attn2"
    assert torch.equal(state["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"], unet[f"{block}.to_k_ip.weight"])
    assert torch.equal(state["unet.class_embedding.linear_2.bias"], unet["camera_embed.2.bias"])
    assert torch.equal(state["tokens.layers.0.1.3.weight"], unet["image_embed.layers.0.1.3.weight"])
    text = [name for name, reason in report.unused.items() if "for text" in reason]
    assert len(text) == 2 * 4  # keys and values of four transformers


def test_imagedream_into_gafs_model_leaves_the_camera_out(tiny_unet, tmp_path):
    save_file(ldm_unet(pictures=True, camera=True), tmp_path / "m.safetensors")
    report = load_pretrained(tiny_unet(image_embedding="resampler"), tmp_path / "m.safetensors")
    camera = {name for name, reason in report.unused.items() if "no poses" in reason}
    assert camera == {f"camera_embed.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")}


def test_the_model_starts_as_the_pretrained_one(tiny_unet, view_inputs, tmp_path):
    """Zeros in conv_in: whatever the normals are, they do not matter yet."""
    save_file(ldm_unet(), tmp_path / "m.safetensors")
    model = tiny_unet()
    load_pretrained(model, tmp_path / "m.safetensors")
    noisy, t, condition = view_inputs(model)
    with torch.no_grad():
        out = model(noisy, t, condition)
        condition.channels.add_(3)
        assert torch.equal(model(noisy, t, condition), out)


def test_leftovers_are_errors_that_name_them(tiny_unet, tmp_path):
    unet = ldm_unet()
    file = tmp_path / "m.safetensors"
    save_file(unet | {"input_blocks.1.1.transformer_blocks.0.attn1.to_q_lora.weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"to_q_lora\.weight \(no parameter of the model\)"):
        load_pretrained(tiny_unet(), file)
    save_file({k: v for k, v in unet.items() if k != "out.2.bias"}, file)
    with pytest.raises(InputError, match=r"unet\.conv_out\.bias \[4\] \(of the model; not in the file\)"):
        load_pretrained(tiny_unet(), file)
    save_file(unet | {"out.2.bias": torch.zeros(5)}, file)
    with pytest.raises(InputError, match=r"out\.2\.bias \[5\] \(the model has \[4\]\)"):
        load_pretrained(tiny_unet(), file)
    save_file(_whole(unet) | {"something.else": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"something\.else \(no parameter of the model\)"):
        load_pretrained(tiny_unet(), file)


def test_a_failed_load_changes_nothing(tiny_unet, tmp_path):
    save_file({k: v for k, v in ldm_unet().items() if k != "out.2.bias"}, tmp_path / "m.safetensors")
    model = tiny_unet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError):
        load_pretrained(model, tmp_path / "m.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_files_that_are_none(tiny_unet, tmp_path):
    with pytest.raises(MissingError, match="no UNet weights"):
        load_pretrained(tiny_unet(), tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    with pytest.raises(InputError, match="not readable as weights"):
        load_pretrained(tiny_unet(), tmp_path / "bad.safetensors")
    import pickle

    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"a": print}))
    with pytest.raises(InputError, match="not readable as weights"):
        load_pretrained(tiny_unet(), tmp_path / "evil.ckpt")
