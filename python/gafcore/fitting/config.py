"""What can be chosen about a fit. Every field is a flag of `gafcore fit`; the defaults are GAF's where it states them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gafcore.avatars.density import DensityConfig
from gafcore.errors import InputError

Background = Literal["white", "black", "random"]
ColorCorrection = Literal["none", "shared", "frame"]


@dataclass(frozen=True)
class LearningRates:
    """Adam's step sizes. Means and scales are in triangle sizes."""

    means: float = 5e-3
    """Local means at the first iteration, in triangle sizes (GaussianAvatars' value; docs/fitting.md compares it with GAF's 5e-5)."""
    means_last: float = 5e-5
    """Local means at the last iteration; log-linear in between."""
    log_scales: float = 1.7e-2
    """Logarithms of the local scales."""
    quats: float = 1e-3
    """Local rotations."""
    colors: float = 2.5e-3
    """Constant spherical harmonic; the higher ones move at a twentieth of it."""
    opacities: float = 5e-2
    """Opacity logits."""
    translation: float = 1e-6
    """The rig's translation, metres."""
    pose: float = 1e-5
    """The rig's joint rotations, radians."""
    expr: float = 1e-3
    """The rig's expression coefficients."""
    eps: float = 1e-6
    """Adam's epsilon: gradients below it hardly move anything. With the usual 1e-15 a Gaussian glimpsed at the head's rim
    moves as fast as one in full view, and spoils the sides that the camera does not see."""
    color_correction: float = 1e-3
    """Logarithmic gain and offset of each channel."""


@dataclass(frozen=True)
class LossWeights:
    """Weights and thresholds of the loss."""

    l1: float = 0.8
    """Mean absolute difference of the images."""
    ssim: float = 0.2
    """1 - SSIM."""
    lpips: float = 0.1
    """LPIPS (VGG16); counts only with `--lpips-weights`."""
    position: float = 0.01
    """Mean distance of visible local means beyond `position_limit`."""
    position_limit: float = 1.0
    """Free distance of a local mean from its triangle, in triangle sizes."""
    scale: float = 1.0
    """Mean excess of visible local scales over `scale_limit`."""
    scale_limit: float = 0.6
    """Free local scale, in triangle sizes."""


@dataclass(frozen=True)
class FitConfig:
    """How an avatar is fitted to a capture."""

    iterations: int = 6000
    """Steps of one training frame each."""
    seed: int = 0
    """Decides the order of the frames, random backgrounds and split noise."""
    split: str = "train"
    """Which of the capture's splits to fit."""
    background: Background = "random"
    """Behind the head while fitting, a new colour every iteration by default, so that no Gaussian learns to paint background.
    One other than the capture's own needs masks."""
    sh_degree: int = 0
    """Degree of view-dependent colour, 0 to 3. 0 suits one camera: what it sees of the head's colours does not tell view from pose."""
    sh_every: int = 1000
    """Iterations after which the degree in use grows by one, up to `sh_degree`."""
    init_opacity: float = 0.9
    """Opacity of the first Gaussians (GaussianAvatars: 0.1)."""
    tune_rig: bool = True
    """Refine expression, pose and translation of the training timesteps."""
    color_correction: ColorCorrection = "none"
    """Gain and offset a channel between avatar and pictures: one for all frames, or one a frame (for a camera that adapts)."""
    lpips_weights: Path | None = None
    """File or folder with the weights of VGG16 and LPIPS (docs/fitting.md says which); without it the LPIPS term is off."""
    lr: LearningRates = field(default_factory=LearningRates)
    loss: LossWeights = field(default_factory=LossWeights)
    density: DensityConfig = field(default_factory=DensityConfig)
    checkpoint_every: int = 1000
    """Iterations between checkpoints; 0 for none but at an interrupt."""
    tensorboard: bool = False
    """Write TensorBoard events into the output folder."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"sh_degree must be 0 to 3, got {self.sh_degree}")
        if not 0 < self.init_opacity < 1:
            raise InputError(f"init_opacity must lie strictly between 0 and 1, got {self.init_opacity}")
        for name, value in (("sh_every", self.sh_every), ("density.every", self.density.every)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for group, values in (("lr", self.lr), ("loss", self.loss)):
            for name, value in vars(values).items():
                if not math.isfinite(value):
                    raise InputError(f"{group}.{name} must be finite, got {value}")


_FREE_TO_CHANGE = ("checkpoint_every", "tensorboard")  # these do not touch the result, so a resumed run may differ in them


def to_json(config: FitConfig) -> dict[str, Any]:
    """The fields that decide the result, flat ("density.every"), as JSON values."""
    flat: dict[str, Any] = {}
    for name, value in asdict(config).items():
        if name in _FREE_TO_CHANGE:
            continue
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": v for key, v in value.items()})
        else:
            flat[name] = str(value) if isinstance(value, Path) else value
    return flat
