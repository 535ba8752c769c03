"""Reading a Stable Diffusion folder and a ControlNet folder that the user brings: safetensors only, and nothing from the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.schedulers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from gafcore.diffusion.conditioning import SD_GUIDANCE, NormalAxes
from gafcore.diffusion.controlnet import NormalControl
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.errors import InputError, MissingError

_PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
_WITH_WEIGHTS = ("unet", "vae", "text_encoder")
_LAYOUT = "a Stable Diffusion 1.x or 2.x pipeline in diffusers' layout has the folders unet, vae, text_encoder, tokenizer and scheduler"


def check_folders(sd: str | Path, controlnet: str | Path) -> None:
    """Look whether the files are there; cheap, for calling before long work.

    Raises:
        MissingError: A folder, a part of it or its weights in safetensors are absent; the message says which and what to do.
    """
    sd, controlnet = Path(sd), Path(controlnet)
    if not sd.is_dir():
        raise MissingError(f"{sd}: no such folder; {_LAYOUT}")
    for part, file in _PARTS.items():
        if not (sd / part / file).is_file():
            raise MissingError(f"{sd / part / file}: no such file; {_LAYOUT} (`pipeline.save_pretrained(FOLDER)` writes it)")
        if part in _WITH_WEIGHTS:
            _variant(sd / part)
    if not (controlnet / "config.json").is_file():
        raise MissingError(
            f"{controlnet / 'config.json'}: no such file; a ControlNet for normal maps is a folder with config.json and weights"
        )
    _variant(controlnet)


def load_normal_control(
    sd: str | Path,
    controlnet: str | Path,
    prompt: str = "",
    *,
    guidance_scale: float = SD_GUIDANCE,
    axes: NormalAxes = "left_up_back",
    device: torch.device | str = "cpu",
) -> NormalControl:
    """Networks and the encoded prompt, in half precision (bfloat16) on a GPU, in single precision on the CPU.

    Args:
        sd: Folder of a Stable Diffusion pipeline, pretrained or fine-tuned on pictures of one person.
        controlnet: Folder of a ControlNet for normal maps that was trained for this Stable Diffusion.
        prompt: What the views show; empty for nothing. Cut after the text encoder's length.
        guidance_scale: 1 is none. With an empty prompt there is nothing to guide towards.
        axes: As in `NormalControl`.
        device: Where to compute.

    Raises:
        MissingError: As `check_folders`.
        InputError: A part cannot be read, is of another kind than expected, or does not fit the others.
    """
    check_folders(sd, controlnet)
    sd, where = Path(sd), torch.device(device)
    dtype = torch.float32 if where.type == "cpu" else torch.bfloat16

    def weights(cls: Any, folder: Path) -> Any:
        kind = {"variant": _variant(folder), "use_safetensors": True, "torch_dtype": dtype, "output_loading_info": True}
        model, told = _read(cls.from_pretrained, folder, cls.__name__, **kind)
        if told["missing_keys"]:  # they would be random numbers, which nothing but a warning tells
            names = sorted(told["missing_keys"])
            raise InputError(f"{folder}: the weights of {cls.__name__} lack {len(names)} tensors: {', '.join(names[:3])}, ...")
        return model.eval().requires_grad_(False).to(where)

    unet = weights(UNet2DConditionModel, sd / "unet")
    control = weights(ControlNetModel, Path(controlnet))
    vae, encoder = weights(AutoencoderKL, sd / "vae"), weights(CLIPTextModel, sd / "text_encoder")
    tokenizer = _read(CLIPTokenizer.from_pretrained, sd / "tokenizer", "CLIPTokenizer")
    scheduler = _read(DDIMScheduler.from_pretrained, sd / "scheduler", "DDIMScheduler")  # reads the noise levels of any other one
    _check_fit(sd, Path(controlnet), unet, control, vae, encoder)
    try:
        schedule = NoiseSchedule.of(scheduler)
    except ValueError as error:
        raise InputError(f"{sd / 'scheduler'}: {error}") from None
    guided = bool(prompt) and guidance_scale != 1
    text = _encoded(tokenizer, encoder, prompt)
    empty = _encoded(tokenizer, encoder, "") if guided else None
    return NormalControl(vae, unet, control, schedule, text, empty, guidance_scale, axes)


@torch.no_grad()
def _encoded(tokenizer: Any, encoder: Any, prompt: str) -> Float[Tensor, "1 L D"]:
    longest = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    ids = tokenizer(prompt, padding="max_length", max_length=longest, truncation=True, return_tensors="pt").input_ids
    return encoder(ids.to(encoder.device))[0]


def _variant(folder: Path) -> str | None:
    """Which set of weights to read: diffusers names the plain one or, beside or instead of it, one in half precision.

    Raises:
        MissingError: There is neither; pickled weights are not read.
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if any(".fp16" not in name for name in names):
        return None
    if names:
        return "fp16"
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    found = f", only {', '.join(pickled)}, which is a pickle and is not read" if pickled else ""
    raise MissingError(f"{folder}: no weights in safetensors{found}; save the model with save_pretrained(FOLDER, safe_serialization=True)")


def _read(load: Callable[..., Any], folder: Path, what: str, **options: Any) -> Any:
    try:
        return load(folder, local_files_only=True, **options)
    except Exception as error:  # what diffusers and transformers raise on damaged folders is not documented
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        raise InputError(f"{folder}: not readable as {what} ({type(error).__name__}: {reason})") from None


def _check_fit(sd: Path, controlnet: Path, unet: Any, control: Any, vae: Any, encoder: Any) -> None:
    """A ControlNet of another width fails deep inside, if at all: better to say which folder does not belong."""
    if unet.config.addition_embed_type is not None:
        raise InputError(f"{sd}: its UNet needs more than a prompt ({unet.config.addition_embed_type}), as that of SDXL; {_LAYOUT}")
    side = unet.config.sample_size
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise InputError(f"{sd / 'unet' / 'config.json'}: sample_size must be the side of its latents, a whole number > 0, got {side!r}")
    latent = int(vae.config.latent_channels)
    if (unet.config.in_channels, unet.config.out_channels) != (latent, latent):
        raise InputError(
            f"{sd}: its UNet takes {unet.config.in_channels} channels and gives {unet.config.out_channels}, the autoencoder has {latent}; "
            "inpainting and depth models do not fit here"
        )
    if unet.config.cross_attention_dim != encoder.config.hidden_size:
        raise InputError(
            f"{sd}: its UNet attends to text of width {unet.config.cross_attention_dim}, its text encoder's is {encoder.config.hidden_size}"
        )
    for name in ("cross_attention_dim", "block_out_channels", "layers_per_block", "in_channels"):
        has, wanted = (list(x) if isinstance(x, list | tuple) else x for x in (control.config[name], unet.config[name]))
        if has != wanted:
            raise InputError(
                f"{controlnet}: {name} is {has}, but {wanted} in {sd}: a ControlNet goes with the Stable Diffusion that it was trained for"
                " (text of width 768 is that of 1.x, 1024 that of 2.x)"
            )
