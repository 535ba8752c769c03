"""`gafcore train-prior` from end to end at a size for tests: autoencoder, then prior and upsampler on it; shards; estimates; sheets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from diffusers import AutoencoderKL

from gafcore.diffusion.estimate import estimate
from gafcore.diffusion.pipeline import MultiViewHeadPipeline
from gafcore.diffusion.train import prepare_shards, train_prior
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.train_parts import make_parts
from gafcore.diffusion.unet import MultiViewUNet
from gafcore.diffusion.upsampler import LatentUpsampler
from gafcore.errors import InputError, MissingError
from tests.diffusion import toy

DATA = ["synthetic:4"]
BASE = TrainConfig(
    size="tiny", picture_size=16, n_views=2, per_capture=5, steps=2, batch=2, warmup=0, precision="no", n_validation=1,
    validate_every=2, validation_steps=2, checkpoint_every=1, gradient_checkpointing=False, ema_decay=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    """An autoencoder trained for two steps, as everything after it needs one."""
    out = tmp_path_factory.mktemp("vae")
    return train_prior(DATA, replace(BASE, model="autoencoder"), out, cpu=True, console=Console(quiet=True)).folder


@pytest.fixture
def console():
    return Console(record=True, width=400, file=open("/dev/null", "w"))


def test_autoencoder(vae_folder):
    vae = AutoencoderKL.from_pretrained(vae_folder)
    x = torch.rand(1, 3, 16, 16)
    assert vae.decode(vae.encode(x).latent_dist.mode()).sample.shape == x.shape
    sheet = Image.open(vae_folder.parent / "sheets" / "step-00000002.png")
    assert sheet.size == (4 * 18 - 2, 2 * 18 - 2)  # two pictures and two normal maps, and what is left of them


def test_prior_from_captures_and_from_shards(vae_folder, tmp_path, console):
    config = replace(BASE, vae=vae_folder)
    result = train_prior(DATA, config, tmp_path / "a", cpu=True, console=console)
    text = console.export_text()
    assert "no CLIP: a random frozen vision tower" in text and "GiB a process" in text and "hours at an assumed 100 TFLOP/s" in text
    pipe = MultiViewHeadPipeline.from_pretrained(result.folder)
    pipe.set_progress_bar_config(disable=True)
    views = pipe(torch.rand(3, 16, 16), torch.zeros(2, 3, 16, 16), num_inference_steps=2, output_type="pt").images
    assert views.shape == (2, 3, 16, 16)
    sheet = np.asarray(Image.open(tmp_path / "a" / "sheets" / "step-00000002.png"))
    assert sheet.shape == (3 * 18 - 2, 3 * 18 - 2, 3)  # input and normals; samples; truths

    prepare_shards(DATA, config, tmp_path / "shards", console=console)
    again = train_prior([str(tmp_path / "shards")], config, tmp_path / "b", cpu=True, console=console)
    # Half precision on the way: close, not equal.
    assert again.trained.losses == pytest.approx(result.trained.losses, rel=1e-2)
    with pytest.raises(InputError, match="written for another training .*condition 'normals', needed 'none'"):
        train_prior([str(tmp_path / "shards")], replace(config, condition="none"), tmp_path / "c", cpu=True, console=console)
    with pytest.raises(InputError, match="holds checkpoints of another training; resume it"):
        train_prior(DATA, config, tmp_path / "a", cpu=True, console=console)
    longer = train_prior([str(tmp_path / "shards")], replace(config, steps=3), tmp_path / "b", resume=True, cpu=True, console=console)
    assert longer.trained.losses[:2] == again.trained.losses and "resumed from" in console.export_text()


def test_upsampler(vae_folder, tmp_path, console):
    config = replace(BASE, model="upsampler", vae=vae_folder, tensorboard=True)
    result = train_prior(DATA, config, tmp_path, cpu=True, console=console)
    assert LatentUpsampler.from_pretrained(result.folder).config.latent_channels == 4
    assert Image.open(tmp_path / "sheets" / "step-00000002.png").size == (2 * 18 - 2, 3 * 18 - 2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(result.trained.losses)


def test_command(vae_folder, tmp_path, capsys):
    from gafcore.cli.main import main

    values = {"size": "tiny", "picture-size": 16, "n-views": 2, "per-capture": 5, "steps": 1, "batch": 2, "precision": "no"}
    values |= {"n-validation": 1, "validation-steps": 1, "vae": vae_folder}
    flags = [text for name, value in values.items() for text in (f"--{name}", str(value))] + ["--cpu"]
    assert main(["train-prior", *DATA, "--out", str(tmp_path / "x"), *flags]) == 0
    out = capsys.readouterr().out
    assert "wrote" in out and "1 steps, last loss" in out and "memory, estimated" in out
    assert main(["train-prior", *DATA, "--out", str(tmp_path / "y"), *flags, "--batch", "0"]) == 2
    assert "batch must be >= 1, got 0" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path, console):
    with pytest.raises(MissingError, match="vae is not given"):
        train_prior(DATA, BASE, tmp_path, cpu=True, console=console)
    with pytest.raises(MissingError, match="no autoencoder; expected config.json"):
        train_prior(DATA, replace(BASE, vae=tmp_path), tmp_path, cpu=True, console=console)
    with pytest.raises(MissingError, match="no capture here"):
        train_prior([str(tmp_path)], replace(BASE, model="autoencoder"), tmp_path, cpu=True, console=console)
    with pytest.raises(InputError, match="5 samples, of which 5 are held out"):
        train_prior(DATA, replace(BASE, model="autoencoder", n_validation=5), tmp_path, cpu=True, console=console)
    vae = train_prior(DATA, replace(BASE, model="autoencoder", steps=1, validate_every=0), tmp_path / "v", cpu=True, console=console).folder
    with pytest.raises(InputError, match="write shards, or set workers 0"):
        train_prior(DATA, replace(BASE, vae=vae, workers=1), tmp_path, cpu=True, console=console)
    with pytest.raises(InputError, match="an autoencoder trains on pictures"):
        prepare_shards(DATA, replace(BASE, model="autoencoder"), tmp_path)


def test_every_size_fits_its_own_sizes(vae_folder):
    for size in ("small", "tiny"):
        for model in ("autoencoder", "multiview", "upsampler"):
            parts = make_parts(replace(BASE, size=size, model=model, vae=vae_folder, picture_size=64))
            assert sum(p.numel() for p in parts.model.parameters()) > 0


def test_estimate_counts_what_a_hand_count_finds():
    """A linear layer costs 2 x in x out a token; attention 4 x queries x keys x channels; a backward pass twice the forward one."""
    from torch import nn

    class Objective:
        def __call__(self, model, batch, generators):
            return model(batch.image_latents[:, :, 0]).square().mean()[None]

    sample = toy.ToySamples()[0]
    made = estimate(nn.Linear(8, 32), Objective(), sample, replace(BASE, ema_decay=0.5), micro=3)
    tokens = 4
    assert made.flops_per_sample == 3 * 2 * tokens * 8 * 32
    assert made.parameters == 8 * 32 + 32 and made.state_bytes == 4 * 5 * made.parameters
    # Kept: the layer's input (4 x 8) and its output (4 x 32, for the square), single precision, for three samples.
    assert made.activation_bytes == 3 * 4 * (4 * 8 + 4 * 32)


def test_estimate_of_the_full_size():
    with torch.device("meta"):
        model = MultiViewUNet()
    sample = toy.ToySamples()[0]
    sample = replace(
        sample, latents=torch.empty(4, 4, 32, 32), image_latents=torch.empty(4, 32, 32), clip=torch.empty(1024),
        channels=torch.empty(4, 4, 32, 32), viewmats=torch.empty(4, 4, 4),
    )  # fmt: skip
    objective = toy.parts().objective
    plain = estimate(model, objective, sample, TrainConfig(gradient_checkpointing=False), micro=1)
    model.enable_gradient_checkpointing()
    light = estimate(model, objective, sample, TrainConfig(), micro=1)
    # Five frames of SD 2.1's UNet at 32 x 32, attention over all of them: a good 1 TFLOP forward.
    assert 1.0e12 < plain.flops_per_sample / 3 < 1.2e12
    assert light.flops_per_sample == pytest.approx(plain.flops_per_sample * 4 / 3)
    assert light.activation_bytes < 0.25 * plain.activation_bytes
