"""Does the multi-view model learn, and does sampling give back what it learned? Three made-up samples by heart, then drawn from noise.

About five minutes of processor time for each input mode, which is why it is a script and not a test:

    PYTHONPATH=python:. python scripts/check_prior_learns.py frame
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from gafcore.diffusion.encoded import collate_encoded
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.diffusion.sheets import sample_views
from tests.diffusion import toy


def main(mode: str, steps: int = 2500) -> None:
    sizes = dict(block_out_channels=(32, 32), head_dim=16, norm_num_groups=8, input_mode=mode)
    made = toy.trainer(steps=steps, batch=8, lr=3e-3, warmup=50, ema_decay=0.99, snr_gamma=5.0, unet=sizes)
    made.data = toy.ToySamples(3)
    losses = made.run().losses
    batch = collate_encoded([made.data[i] for i in range(3)])
    swapped = replace(batch, **{n: getattr(batch, n).roll(1, 0) for n in ("image_latents", "clip", "channels")})
    model, schedule = made.averaged(), NoiseSchedule.of(made.parts.scheduler)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    power = float(batch.latents.square().mean())
    print(f"{mode}: loss {sum(losses[:50]) / 50:.4f} to {sum(losses[-50:]) / 50:.4f}; power of the truth {power:.3f}")
    for name, given, truth in (("samples", batch, batch.latents), ("conditions swapped", swapped, batch.latents.roll(1, 0))):
        errors = (sample_views(model, schedule, given, noise, 50) - truth).square().mean((1, 2, 3, 4))
        print(f"{name}: mean squared error {', '.join(f'{float(e):.4f}' for e in errors)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "frame")
