"""The settings of a training: one frozen dataclass, which is also the flags of `gafcore train-prior`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gafcore.errors import InputError

# Sizes of the three networks. "sd21" is the paper's; "small" trains on one GPU in hours; "tiny" is for trying things out on a CPU.
UNETS: dict[str, dict[str, Any]] = {
    "sd21": {},
    "small": dict(block_out_channels=(128, 256, 384), attention_levels=(True, True, True), cross_attention_dim=256),
    "tiny": dict(
        block_out_channels=(32, 64),
        attention_levels=(True, True),
        layers_per_block=1,
        head_dim=16,
        cross_attention_dim=32,
        norm_num_groups=8,
    ),
}
UPSAMPLERS: dict[str, dict[str, Any]] = {
    "sd21": {},
    "small": dict(block_out_channels=(96, 192, 256), attention_levels=(False, False, True), head_dim=32),
    "tiny": dict(block_out_channels=(16, 32), attention_levels=(False, True), layers_per_block=1, head_dim=16, norm_num_groups=8),
}
# Eight times smaller latents as Stable Diffusion's, or four times with more channels, which keep more of small pictures.
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "sd21": dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32),
    "small": dict(block_out_channels=(64, 128, 128), layers_per_block=1, latent_channels=8, norm_num_groups=32),
    "tiny": dict(block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8),
}


@dataclass(frozen=True)
class TrainConfig:
    """The defaults are GAF's (section 4.4): 20,000 iterations of 64 heads, learning rate 1e-4, the picture dropped at a rate of 0.1.

    Attributes:
        model: What to train.
        size: Sizes of its network: "sd21" as the paper, "small", "tiny".
        condition: Of the multi-view model: "normals", "pose", "none" or "warp".
        input_mode: "frame" or "reference".
        attention: "3d" or "2d".
        image_embedding: "global" or "resampler".
        prediction: "epsilon", "v_prediction" or "sample".
        init: Pretrained UNet to start from: file or folder.
        vae: Folder of the autoencoder (diffusers' layout); needed by the multi-view model and the upsampler, unless the data are shards.
        clip: Folder of CLIP's vision tower; without it a small random frozen one takes its place, whose features say little.
        picture_size: Width and height of the pictures, pixels.
        n_views: Views of a sample.
        per_capture: Samples of each capture.
        steps: Optimiser steps.
        batch: Samples a step, over all processes and accumulation.
        micro_batch: Samples a process takes at once; 0 takes its whole share.
        lr: Learning rate.
        warmup: Steps over which it rises.
        weight_decay: Of AdamW.
        clip_norm: Largest norm of the gradient; 0 for no limit.
        drop: Rate at which the picture is dropped.
        snr_gamma: Gamma of min-SNR weights; 0 for none.
        ema_decay: Of the averaged weights, which are what is saved; 0 for none.
        gradient_checkpointing: Less memory for a third more time.
        precision: "no" (single), "bf16" or "fp16".
        seed: Of everything random.
        workers: Processes that load data; 0 loads in the training process.
        checkpoint_every: Steps between checkpoints.
        checkpoint_limit: Checkpoints kept.
        validate_every: Steps between validation sheets; 0 for none.
        n_validation: Samples on a sheet; they are held out.
        validation_steps: DDIM steps of a sheet's views.
        tensorboard: Log for TensorBoard, below the output folder.
        tflops: Sustained speed assumed for the time estimate, 10^12 operations a second over all processes.
    """

    model: Literal["multiview", "upsampler", "autoencoder"] = "multiview"
    size: Literal["sd21", "small", "tiny"] = "sd21"
    condition: Literal["normals", "pose", "none", "warp"] = "normals"
    input_mode: Literal["frame", "reference"] = "frame"
    attention: Literal["3d", "2d"] = "3d"
    image_embedding: Literal["global", "resampler"] = "global"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    init: Path | None = None
    vae: Path | None = None
    clip: Path | None = None
    picture_size: int = 256
    n_views: int = 4
    per_capture: int = 64
    steps: int = 20_000
    batch: int = 64
    micro_batch: int = 0
    lr: float = 1e-4
    warmup: int = 500
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    drop: float = 0.1
    snr_gamma: float = 5.0
    ema_decay: float = 0.9999
    gradient_checkpointing: bool = True
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    seed: int = 0
    workers: int = 0
    checkpoint_every: int = 1000
    checkpoint_limit: int = 2
    validate_every: int = 1000
    n_validation: int = 4
    validation_steps: int = 50
    tensorboard: bool = False
    tflops: float = 100.0

    def __post_init__(self) -> None:
        at_least = {"picture_size": 8, "n_views": 1, "per_capture": 1, "steps": 1, "batch": 1, "micro_batch": 0, "warmup": 0, "workers": 0}
        at_least |= {"checkpoint_every": 1, "checkpoint_limit": 1, "validate_every": 0, "n_validation": 0, "validation_steps": 1, "seed": 0}
        for name, low in at_least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} must be >= {low}, got {getattr(self, name)}")
        for name in ("lr", "tflops"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be > 0, got {getattr(self, name)}")
        for name, high in (("drop", 1.0), ("ema_decay", 1.0)):
            if not 0 <= getattr(self, name) < high:
                raise InputError(f"{name} must be in [0, {high}), got {getattr(self, name)}")
        if self.validate_every and not self.n_validation:
            raise InputError("validate_every needs n_validation > 0: samples for the sheets")

    def share(self, n_processes: int) -> tuple[int, int]:
        """Samples of a step that each process has, and how many it takes at once.

        Raises:
            InputError: They do not divide evenly: gradients would not be the mean over the batch.
        """
        if self.batch % n_processes:
            raise InputError(f"batch must be a multiple of the number of processes, got {self.batch} and {n_processes}")
        share = self.batch // n_processes
        micro = self.micro_batch or share
        if share % micro:
            raise InputError(f"micro_batch must divide a process's share of the batch, got {micro} and {share}")
        return share, micro
