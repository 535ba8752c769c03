"""The networks of a training: the one that learns, and the frozen ones beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gafcore.diffusion.objectives import (
    AutoencoderForTraining,
    AutoencoderObjective,
    MultiViewObjective,
    Objective,
    UpsamplerObjective,
)
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.diffusion.train_config import AUTOENCODERS, UNETS, UPSAMPLERS, TrainConfig
from gafcore.diffusion.unet import MultiViewUNet
from gafcore.diffusion.upsampler import LatentUpsampler
from gafcore.diffusion.weights import load_pretrained
from gafcore.errors import InputError, MissingError

_RANDOM_CLIP_DIM = 64


@dataclass(frozen=True)
class Parts:
    """Attributes:
    model: What learns.
    objective: Its loss.
    scheduler: The noise schedule, as it is saved.
    vae: Frozen autoencoder; None where it is what learns.
    image_encoder: Frozen CLIP; None where not needed.
    notes: What was loaded and what was made up.
    """

    model: nn.Module
    objective: Objective
    scheduler: Any
    vae: Any | None
    image_encoder: Any | None
    notes: tuple[str, ...] = ()


def make_scheduler(prediction: str) -> Any:
    """Stable Diffusion's schedule. Its last timestep keeps a little signal, as the pretrained weights expect."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction,
    )


def load_vae(path: Path) -> Any:
    """An autoencoder from its folder or a whole Stable Diffusion folder.

    Raises:
        MissingError: There is none.
    """
    return _from_folder(AutoencoderKL, path, "vae", "autoencoder").eval().requires_grad_(False)


def load_clip(path: Path) -> Any:
    """CLIP's vision tower from its folder or a pipeline's.

    Raises:
        MissingError: There is none.
    """
    return _from_folder(CLIPVisionModelWithProjection, path, "image_encoder", "CLIP vision tower").eval().requires_grad_(False)


def _from_folder(cls: Any, path: Path, inner: str, what: str) -> Any:
    folder = next((p for p in (path / inner, path) if (p / "config.json").is_file()), None)
    if folder is None:
        raise MissingError(f"{path}: no {what}; expected config.json here or in {inner}/, as save_pretrained writes it")
    try:
        return cls.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what the libraries raise on damaged folders is not documented
        raise InputError(f"{folder}: no readable {what} ({type(error).__name__}: {str(error).splitlines()[0][:200]})") from None


def random_clip(seed: int = 0) -> Any:
    """A small frozen vision tower with random weights: the picture's place in the model without CLIP's knowledge."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPVisionConfig(
            hidden_size=_RANDOM_CLIP_DIM, intermediate_size=2 * _RANDOM_CLIP_DIM, num_hidden_layers=3, num_attention_heads=4,
            image_size=64, patch_size=16, projection_dim=_RANDOM_CLIP_DIM,
        )  # fmt: skip
        return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)


def make_parts(config: TrainConfig) -> Parts:
    """Build or load everything; random initialisation follows the seed.

    Raises:
        MissingError: An autoencoder is needed and not named.
        InputError: What is named does not fit.
    """
    torch.manual_seed(config.seed)
    scheduler = make_scheduler(config.prediction)
    if config.model == "autoencoder":
        return Parts(AutoencoderForTraining(_new_vae(config)), AutoencoderObjective(), scheduler, None, None)
    if config.vae is None:
        raise MissingError("vae is not given: name a folder with an autoencoder, Stable Diffusion's or one by --model autoencoder")
    vae, schedule = load_vae(config.vae), NoiseSchedule.of(scheduler)
    n_channels = vae.config.latent_channels
    if config.model == "upsampler":
        model = LatentUpsampler(latent_channels=n_channels, **UPSAMPLERS[config.size])
        objective = UpsamplerObjective(schedule, config.snr_gamma, model.config.max_noise_level)
        return Parts(model, objective, scheduler, vae, random_clip(), ())
    clip = load_clip(config.clip) if config.clip else random_clip()
    notes = [] if config.clip else ["no CLIP: a random frozen vision tower stands in for it"]
    model = _new_unet(config, vae, clip)
    if config.init is not None:
        notes.append(load_pretrained(model, config.init).summary())
    return Parts(model, MultiViewObjective(schedule, config.drop, config.snr_gamma), scheduler, vae, clip, tuple(notes))


def _new_vae(config: TrainConfig) -> Any:
    sizes = AUTOENCODERS[config.size]
    n = len(sizes["block_out_channels"])
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n)
    # Trained to latents of about unit variance, unlike Stable Diffusion's, so without its scale.
    return AutoencoderKL(**sizes, **blocks, sample_size=config.picture_size, scaling_factor=1.0)


def _new_unet(config: TrainConfig, vae: Any, clip: Any) -> MultiViewUNet:
    tokens = config.image_embedding == "resampler"
    return MultiViewUNet(
        n_views=config.n_views,
        latent_channels=vae.config.latent_channels,
        condition=config.condition,
        input_mode=config.input_mode,
        attention=config.attention,
        image_embedding=config.image_embedding,
        clip_dim=clip.config.hidden_size if tokens else clip.config.projection_dim,
        sample_size=config.picture_size // 2 ** (len(vae.config.block_out_channels) - 1),
        **UNETS[config.size],
    )
