"""The noise schedule and DDIM's deterministic steps over it, from any timestep in strides that end in the clean picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]


def strided_timesteps(start: int, stride: int = 20) -> list[int]:
    """`start, start - stride, ...` down to the last one > 0, and none below: GAF's t / k steps, rounded up.

    The step from the last of them goes to the clean picture itself, not to timestep 0, which still has noise. So also a `start` that is a
    multiple of `stride` ends clean: 40 gives [40, 20].

    Raises:
        ValueError: `start` is negative or `stride` is not positive.
    """
    if start < 0 or stride < 1:
        raise ValueError(f"strided_timesteps needs start >= 0 and stride >= 1, got {start} and {stride}")
    return list(range(start, 0, -stride)) or [0]


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e, with `alphas_cumprod` a [T] in float64, and what the model predicts."""

    alphas_cumprod: Float[Tensor, "T"]
    prediction: Prediction = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction must be epsilon, v_prediction or sample, got {self.prediction!r}")
        if self.prediction == "epsilon" and float(self.alphas_cumprod.min()) <= 0:
            raise ValueError("with zero signal at the end of the schedule epsilon says nothing about the picture; predict v or the sample")

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """The schedule of a diffusers scheduler."""
        return cls(scheduler.alphas_cumprod.double().cpu(), scheduler.config.prediction_type)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def _scales(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), shaped to multiply `like`, whose first dimension is that of `t`."""
        t = torch.as_tensor(t, device="cpu")
        a = self.alphas_cumprod[t]
        shape = (-1, *[1] * (like.dim() - 1)) if t.dim() else ()
        return tuple(x.to(like).reshape(shape) for x in (a.sqrt(), (1 - a).sqrt()))  # type: ignore[return-value]

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        signal, sigma = self._scales(t, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """What the model's output should be."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        signal, sigma = self._scales(t, clean)
        return signal * noise - sigma * clean

    def split(self, output: Tensor, noisy: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor]:
        """The clean picture and the noise that a model's output says are in `noisy`."""
        signal, sigma = self._scales(t, noisy)
        if self.prediction == "epsilon":
            return (noisy - sigma * output) / signal, output
        if self.prediction == "v_prediction":
            return signal * noisy - sigma * output, sigma * noisy + signal * output
        return output, (noisy - signal * output) / sigma

    def step(self, output: Tensor, noisy: Tensor, t: int, to: int | None) -> Tensor:
        """DDIM without fresh noise (Song et al. 2021, equation 12 with sigma 0), from `t` to `to`; None is the clean picture."""
        clean, noise = self.split(output, noisy, t)
        return clean if to is None else self.add_noise(clean, noise, to)

    def snr_weight(self, t: Tensor, gamma: float) -> Tensor:
        """Min-SNR weight [B] of the output's squared error (Hang et al. 2023): min(snr, gamma) times that of the clean picture."""
        a = self.alphas_cumprod[t.cpu()]
        snr = a / (1 - a)
        capped = snr.clamp(max=gamma)
        if self.prediction == "epsilon":
            return (capped / snr).to(t.device, torch.float32)
        return (capped if self.prediction == "sample" else capped / (snr + 1)).to(t.device, torch.float32)
