"""A training small enough for tests: random encoded samples and a tiny multi-view model. Also run as a script, by two processes at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

N_VIEWS, SIZE, CHANNELS, CLIP = 2, 8, 4, 20
CASES = (("frame", 2), ("reference", 1))  # input mode, and samples that a process takes at once; 1 with gradient checkpointing


@dataclass(frozen=True)
class ToySamples:
    n: int = 12

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        from gafcore.diffusion.encoded import EncodedSample
        from gafcore.diffusion.randomness import generator

        g = generator(77, index)
        shape = (N_VIEWS, CHANNELS, SIZE, SIZE)
        return EncodedSample(
            latents=torch.randn(shape, generator=g),
            image_latents=torch.randn(shape[1:], generator=g),
            clip=torch.randn(CLIP, generator=g),
            channels=torch.randn(shape, generator=g),
            viewmats=torch.eye(4).repeat(N_VIEWS, 1, 1),
            low_latents=torch.randn(N_VIEWS, CHANNELS, SIZE // 2, SIZE // 2, generator=g),
            key=str(index),
        )


def parts(model: str = "multiview", **unet):
    from gafcore.diffusion.objectives import MultiViewObjective, UpsamplerObjective
    from gafcore.diffusion.schedule import NoiseSchedule
    from gafcore.diffusion.train_parts import Parts, make_scheduler
    from gafcore.diffusion.unet import MultiViewUNet
    from gafcore.diffusion.upsampler import LatentUpsampler

    torch.manual_seed(0)
    scheduler = make_scheduler("epsilon")
    schedule = NoiseSchedule.of(scheduler)
    sizes = dict(block_out_channels=(16, 16), attention_levels=(True, False), layers_per_block=1, head_dim=8, norm_num_groups=4)
    if model == "upsampler":
        return Parts(LatentUpsampler(sample_size=SIZE, **sizes), UpsamplerObjective(schedule), scheduler, None, None)
    net = MultiViewUNet(sample_size=SIZE, cross_attention_dim=12, clip_dim=CLIP, n_views=N_VIEWS, **(sizes | unet))
    return Parts(net, MultiViewObjective(schedule, drop=0.3), scheduler, None, None)


def trainer(out: Path | None = None, model: str = "multiview", unet: dict | None = None, **config):
    from gafcore.diffusion.encoded import collate_encoded
    from gafcore.diffusion.train_config import TrainConfig
    from gafcore.diffusion.trainer import Trainer

    defaults = dict(steps=6, batch=4, lr=1e-3, warmup=2, precision="no", checkpoint_every=2, ema_decay=0.9, gradient_checkpointing=False)
    settings = TrainConfig(model=model, size="tiny", **(defaults | config))
    return Trainer(parts(model, **(unet or {})), ToySamples(), collate_encoded, settings, out, cpu=True)


if __name__ == "__main__":
    # Every process leaves the gradient of one step, for each case; the first writes it.
    torch.set_num_threads(1)
    out = {}
    for mode, micro in CASES:
        made = trainer(unet={"input_mode": mode}, micro_batch=micro, gradient_checkpointing=micro == 1)
        loss = made.gradients(next(made._steps()))
        gradients = {n: p.grad for n, p in made.state.model.named_parameters() if p.grad is not None}
        out[mode] = {"loss": loss, "gradients": gradients, "processes": made.accelerator.num_processes}
    if made.accelerator.is_main_process:
        torch.save(out, sys.argv[1])
    made.accelerator.end_training()
