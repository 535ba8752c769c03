"""What is said where a Stable Diffusion folder or a ControlNet is not as it should be."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
import diffusers
from safetensors.torch import load_file, save_file

from gafcore.diffusion.sd_folder import check_folders, load_normal_control
from gafcore.errors import InputError, MissingError
from tests.diffusion.tiny_sd import save_controlnet, save_sd

UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    sd = save_sd(root / "sd")
    return sd, save_controlnet(root / "controlnet", sd)


@pytest.fixture
def folders(made, tmp_path):
    """A copy to spoil."""
    for folder in made:
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / "sd", tmp_path / "controlnet"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_size_is_that_of_the_training(made):
    networks = load_normal_control(*made)
    assert networks.size == 16 and networks.text.shape == (1, 12, 24)


@pytest.mark.parametrize("side", [None, "64", [8, 8], 0, True])
def test_a_size_that_is_no_number(folders, side):
    edit(folders[0] / "unet" / "config.json", sample_size=side)
    with pytest.raises(InputError, match=r"unet/config.json: sample_size must be the side of its latents, a whole number > 0, got"):
        load_normal_control(*folders)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(folders, part):
    shutil.rmtree(folders[0] / part)
    with pytest.raises(MissingError, match=rf"sd/{part}/\w+\.json: no such file; a Stable Diffusion 1.x or 2.x pipeline"):
        check_folders(*folders)


def test_missing_folders_are_named(made, tmp_path):
    with pytest.raises(MissingError, match="nowhere: no such folder; a Stable Diffusion"):
        check_folders(tmp_path / "nowhere", made[1])
    with pytest.raises(MissingError, match=r"nowhere/config.json: no such file; a ControlNet for normal maps"):
        check_folders(made[0], tmp_path / "nowhere")


@pytest.mark.parametrize("where", ["unet", "controlnet"])
def test_pickled_weights_are_not_read(folders, where):
    folder = folders[0] / "unet" if where == "unet" else folders[1]
    (folder / UNET_WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(MissingError, match=r"only diffusion_pytorch_model.bin, which is a pickle and is not read"):
        load_normal_control(*folders)


def test_half_precision_files_alone_will_do(folders, made):
    for folder, stem in ((folders[0] / "unet", UNET_WEIGHTS), (folders[0] / "text_encoder", "model.safetensors")):
        (folder / stem).rename(folder / stem.replace(".safetensors", ".fp16.safetensors"))
    got, want = load_normal_control(*folders), load_normal_control(*made)
    assert torch.equal(got.text, want.text) and torch.equal(got.unet.conv_in.weight, want.unet.conv_in.weight)


def test_missing_tensors_are_not_made_up(folders):
    path = folders[0] / "unet" / UNET_WEIGHTS
    tensors = load_file(path)
    del tensors["conv_out.bias"]
    save_file(tensors, path)
    with pytest.raises(InputError, match="unet: the weights of UNet2DConditionModel lack 1 tensors: conv_out.bias"):
        load_normal_control(*folders)


def test_damaged_weights(folders):
    (folders[0] / "vae" / UNET_WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="vae: not readable as AutoencoderKL"):
        load_normal_control(*folders)


def test_a_controlnet_for_another_model(made, tmp_path):
    other = save_controlnet(tmp_path / "other", text_width=40)
    with pytest.raises(InputError, match="other: cross_attention_dim is 40, but 24 in .*sd: a ControlNet goes with the Stable Diffusion"):
        load_normal_control(made[0], other)


def test_models_that_need_more_than_a_prompt(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "sd")
    wide = diffusers.UNet2DConditionModel.from_config(diffusers.UNet2DConditionModel.load_config(made[0] / "unet"), in_channels=9)
    wide.save_pretrained(tmp_path / "sd" / "unet")
    with pytest.raises(InputError, match="takes 9 channels and gives 4, the autoencoder has 4; inpainting"):
        load_normal_control(tmp_path / "sd", made[1])


def test_noise_levels_that_cannot_be(folders):
    edit(folders[0] / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    with pytest.raises(InputError, match="scheduler: with zero signal at the end of the schedule epsilon says nothing"):
        load_normal_control(*folders)
