"""A Stable Diffusion pipeline and a ControlNet with random weights, in the layout of real ones: 16 x 16 pictures, 8 x 8 latents."""

from __future__ import annotations

import json
from pathlib import Path

import torch

TOKENS = 12  # of a prompt, begin and end included


def save_sd(folder: Path, *, seed: int = 0, prediction: str = "epsilon", text_width: int = 24) -> Path:
    """A StableDiffusionPipeline, saved in `folder`."""
    import diffusers
    import transformers

    torch.manual_seed(seed)
    text = transformers.CLIPTextConfig(
        vocab_size=54, hidden_size=text_width, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8))
    pipeline = diffusers.StableDiffusionPipeline(
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=_tokenizer(folder / "tokenizer"),
        vae=diffusers.AutoencoderKL(latent_channels=4, norm_num_groups=4, sample_size=16, **blocks),
        unet=make_unet(text_width),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path):
    """Every letter is a token: there are no merges."""
    import transformers

    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **marks}))
    return transformers.CLIPTokenizer.from_pretrained(folder)


def make_unet(text_width: int = 24):
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def save_controlnet(folder: Path, sd: Path | None = None, *, seed: int = 1, text_width: int = 24) -> Path:
    """Made from the UNet in `sd`, or from a new one; the layers that start at zero are random, as after training."""
    import diffusers

    torch.manual_seed(seed)
    unet = make_unet(text_width) if sd is None else diffusers.UNet2DConditionModel.from_pretrained(sd / "unet")
    made = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))  # two sizes: latents are half as wide
    for name, x in made.named_parameters():
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block", "controlnet_cond_embedding.conv_out")):
            torch.nn.init.normal_(x, std=0.1)
    made.save_pretrained(folder)
    return folder
