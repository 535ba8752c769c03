"""`train_prior`: data and settings to a trained network on disk, with checkpoints and validation sheets on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from gafcore.diffusion import sheets
from gafcore.diffusion.estimate import estimate
from gafcore.diffusion.pipeline import MultiViewHeadPipeline
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.diffusion.shards import write_shards
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.train_data import EncodedSet, TrainData, about, encoder_of, open_data, pictures_of
from gafcore.diffusion.train_parts import Parts, make_parts
from gafcore.diffusion.trainer import Trained, Trainer
from gafcore.errors import InputError
from gafcore.files import atomic_path, check_output_folder
from gafcore.pictures import save_image

_RESULTS = {"multiview": "pipeline", "upsampler": "upsampler", "autoencoder": "vae"}


@dataclass(frozen=True)
class TrainResult:
    """Attributes:
    trained: Steps and losses.
    folder: What was saved: a pipeline, an upsampler or an autoencoder, as diffusers loads them.
    """

    trained: Trained
    folder: Path


def train_prior(
    data: Sequence[str], config: TrainConfig, out: Path, *, resume: bool = False, cpu: bool = False, console: Console | None = None
) -> TrainResult:
    """Train, and save the averaged weights.

    Args:
        data: Captures, "synthetic:SEEDS", or one folder of shards.
        config: Settings.
        out: Folder for checkpoints, sheets, logs and the result.
        resume: Go on from the newest checkpoint there.
        cpu: Keep off any GPU.
        console: Where to report.

    Raises:
        GafError: As the parts say: missing or unfit data, weights or settings; a loss that is not a number.
    """
    check_output_folder(out)
    console = console or Console()
    parts = make_parts(config)
    opened = open_data(data, config, parts)
    trainer = Trainer(parts, opened.training, opened.collate, config, out, cpu=cpu)
    first = trainer.accelerator.is_main_process
    if first:
        for note in (*parts.notes, *opened.notes):
            console.print(note, highlight=False, markup=False)
        print_estimate(trainer, opened, console)
    if resume:
        path = trainer.resume()
        if first:
            console.print(f"resumed from {path}", highlight=False, markup=False)
    elif (out / "checkpoints").exists() and any((out / "checkpoints").iterdir()):
        raise InputError(f"{out}: holds checkpoints of another training; resume it, or name another folder")
    watch = _Watch(trainer, opened, out, console if first else None)
    trained = trainer.run(watch)
    if first:
        save_result(trainer, out / _RESULTS[config.model])
    trainer.accelerator.wait_for_everyone()
    return TrainResult(trained, out / _RESULTS[config.model])


def print_estimate(trainer: Trainer, opened: TrainData, console: Console) -> None:
    """Memory and time, before anything starts."""
    made = estimate(trainer.state.model, trainer.parts.objective, opened.training[0], trainer.config, trainer.micro)
    console.print(made.summary(trainer.config, trainer.accelerator.num_processes), highlight=False, markup=False)


@dataclass
class _Watch:
    """After every step: a line now and then, a sheet when one is due."""

    trainer: Trainer
    data: TrainData
    out: Path
    console: Console | None

    def __post_init__(self) -> None:
        self.started, self.begun_at, self.shown = time.monotonic(), self.trainer.state.step, 0.0

    def __call__(self, step: int, _loss: float) -> None:
        c = self.trainer.config
        if self.console is None:
            return
        elapsed = time.monotonic() - self.started
        if step == c.steps or elapsed - self.shown > 10:
            self.shown = elapsed
            left = elapsed / max(1, step - self.begun_at) * (c.steps - step)
            recent = self.trainer.state.losses[-50:]
            self.console.print(f"step {step} of {c.steps}, loss {sum(recent) / len(recent):.4f}, {left / 60:.1f} min left", highlight=False)
        if c.validate_every and (step % c.validate_every == 0 or step == c.steps):
            path = self.out / "sheets" / f"step-{step:08d}.png"
            with atomic_path(path) as temporary:
                save_image(temporary, make_sheet(self.trainer, self.data).permute(1, 2, 0))


def make_sheet(trainer: Trainer, data: TrainData) -> Tensor:
    """The validation sheet [3, Y, X] of the averaged weights."""
    c, parts = trainer.config, trainer.parts
    batch = data.collate([data.validation[i] for i in range(len(data.validation))])
    batch = trainer.to_device(batch)
    model: Any = trainer.averaged()
    if c.model == "autoencoder":
        return sheets.autoencoder_sheet(model.vae, batch)
    schedule = NoiseSchedule.of(parts.scheduler)
    if c.model == "upsampler":
        return sheets.upsampler_sheet(model, schedule, parts.vae, batch, c.seed)
    return sheets.multiview_sheet(model, schedule, parts.vae, batch, min(c.validation_steps, len(schedule)), c.seed)


def save_result(trainer: Trainer, folder: Path) -> None:
    """The averaged weights in diffusers' layout; for the multi-view model with everything that sampling needs."""
    parts, model = trainer.parts, trainer.averaged()
    network: Any = getattr(model, "vae", model)
    if trainer.config.model == "multiview":
        network = MultiViewHeadPipeline(parts.vae, parts.image_encoder, network, parts.scheduler)
    network.save_pretrained(folder)


def prepare_shards(data: Sequence[str], config: TrainConfig, out: Path, *, console: Console | None = None) -> Path:
    """Encode captures once and write shards for a training with `config`; interrupted, it goes on where it stopped.

    Raises:
        InputError: The folder holds shards made otherwise, or the model trains on pictures.
    """
    if config.model == "autoencoder":
        raise InputError("shards hold latents; an autoencoder trains on pictures, from captures")
    console = console or Console()
    parts: Parts = make_parts(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts.vae.to(device), parts.image_encoder.to(device)  # type: ignore[union-attr]
    samples = EncodedSet(pictures_of(data, config), encoder_of(config, parts))
    described = about(config, parts) | {"data": list(data), "per_capture": config.per_capture, "seed": config.seed}

    def report(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            console.print(f"{done} of {total} samples", highlight=False)

    return write_shards(samples, out, about=described, report=report)
