"""Names of latent-diffusion checkpoints (Stable Diffusion's original files, MVDream, ImageDream) in terms of `MultiViewUNet`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from gafcore.diffusion.unet import MultiViewUNet

_PREFIX = "model.diffusion_model."
# Whole-checkpoint tensors beside the UNet: other networks, and the noise schedule as buffers.
_ELSEWHERE = re.compile(
    r"^(cond_stage_model|first_stage_model|model_ema|clip_model|image_encoder|vae|embedder)\.|^scale_factor$"
    r"|^(betas|alphas_|sqrt_|log_one_minus_|posterior_|lvlb_weights|logvar)|^model\.(betas|alphas_|sqrt_|log_one_minus_|posterior_)"
)
_TEXT = re.compile(r"\.attn2\.to_[kv]\.weight$")

_OUTSIDE = {
    "time_embed.0": "unet.time_embedding.linear_1",
    "time_embed.2": "unet.time_embedding.linear_2",
    "camera_embed.0": "unet.class_embedding.linear_1",
    "camera_embed.2": "unet.class_embedding.linear_2",
    "input_blocks.0.0": "unet.conv_in",
    "out.0": "unet.conv_norm_out",
    "out.2": "unet.conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def is_ldm(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.removeprefix(_PREFIX).startswith("input_blocks.") for name in tensors)


def _places(model: MultiViewUNet) -> dict[str, str]:
    """Where each numbered module of the checkpoint lives: `input_blocks.4.1` is `down_blocks.1.attentions.0`, and so on."""
    n_layers, attention = model.config.layers_per_block, list(model.config.attention_levels)
    n_levels = len(attention)
    places = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1"}
    number = 1  # 0 is conv_in
    for level in range(n_levels):
        for layer in range(n_layers):
            places[f"input_blocks.{number}.0"] = f"down_blocks.{level}.resnets.{layer}"
            if attention[level]:
                places[f"input_blocks.{number}.1"] = f"down_blocks.{level}.attentions.{layer}"
            number += 1
        if level < n_levels - 1:
            places[f"input_blocks.{number}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            number += 1
    number = 0
    for level in range(n_levels):
        has_attention = attention[n_levels - 1 - level]
        for layer in range(n_layers + 1):
            places[f"output_blocks.{number}.0"] = f"up_blocks.{level}.resnets.{layer}"
            if has_attention:
                places[f"output_blocks.{number}.1"] = f"up_blocks.{level}.attentions.{layer}"
            if layer == n_layers and level < n_levels - 1:
                places[f"output_blocks.{number}.{2 if has_attention else 1}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
            number += 1
    return places


def _rename(name: str, places: Mapping[str, str]) -> str | None:
    """Name in `MultiViewUNet` of a name without the checkpoint's prefix; None where there is none."""
    if name.startswith("image_embed."):
        return "tokens." + name.removeprefix("image_embed.")
    stem, _, leaf = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{leaf}"
    if stem in places:  # a down- or upsampler's convolution
        return f"unet.{places[stem]}.{leaf}"
    block = next((key for key in places if name.startswith(key + ".")), None)
    if block is None:
        return None
    inner, place = stem.removeprefix(block).removeprefix("."), places[block]
    if ".resnets." in place:
        return f"unet.{place}.{_RESNET[inner]}.{leaf}" if inner in _RESNET else None
    return f"unet.{place}.{inner}.{leaf}"


def from_ldm(tensors: Mapping[str, Tensor], model: MultiViewUNet) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str]]:
    """`{name in the model: (name in the file, tensor)}`, and `{name in the file: reason}` for what has no use.

    A tensor whose name means nothing keeps it, so that the caller finds it without a place and says so.
    """
    whole = any(name.startswith(_PREFIX) for name in tensors)
    with_pictures = {name.replace("_ip.weight", ".weight") for name in tensors if name.endswith("_ip.weight")}
    places = _places(model)
    named: dict[str, tuple[str, Tensor]] = {}
    unused: dict[str, str] = {}
    for origin, value in tensors.items():
        if whole and not origin.startswith(_PREFIX):
            if _ELSEWHERE.match(origin):
                unused[origin] = "not of the UNet"
            else:
                named[origin] = (origin, value)
        elif origin in with_pictures and _TEXT.search(origin):
            unused[origin] = "keys and values for text; those for picture tokens take their place"
        else:
            name = origin.removeprefix(_PREFIX).replace(".to_k_ip.", ".to_k.").replace(".to_v_ip.", ".to_v.")
            named[_rename(name, places) or origin] = (origin, value)
    return named, unused
