"""LPIPS (Zhang et al. 2018) on VGG16, from weights that the user brings.

Inputs in 0..1 are standardised, five feature maps are taken after ReLU, scaled to unit length a pixel; the squared differences are weighted
by channel and averaged over the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from gafcore.errors import InputError, MissingError

_CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # numbers in torchvision's vgg16().features, by block
_CHANNELS = (64, 128, 256, 512, 512)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in -1..1: LPIPS's ScalingLayer
_EPS = 1e-10
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Lpips:
    """Calling it with two batches of pictures gives a distance each; differentiable in both."""

    weights: dict[str, Tensor]

    def to(self, device: torch.device | str) -> Lpips:
        return Lpips({name: x.to(device) for name, x in self.weights.items()})

    def __call__(self, image: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B"]:
        distance = image.new_zeros(image.shape[0])
        for i, (a, b) in enumerate(zip(self.features(image), self.features(target), strict=True)):
            difference = (_unit(a) - _unit(b)).square()
            distance = distance + conv2d(difference, self.weights[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
        return distance

    def features(self, image: Float[Tensor, "B H W 3"]) -> list[Tensor]:
        """relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of pictures in 0..1."""
        x = (2 * image - 1).permute(0, 3, 1, 2)
        shift, scale = _standard(x.device, x.dtype)
        x = (x - shift) / scale
        taps = []
        for block, numbers in enumerate(_CONVOLUTIONS):
            x = max_pool2d(x, 2) if block else x
            for n in numbers:
                x = relu(conv2d(x, self.weights[f"features.{n}.weight"], self.weights[f"features.{n}.bias"], padding=1))
            taps.append(x)
        return taps


def load_lpips(path: str | Path) -> Lpips:
    """LPIPS with the weights in a file or in all weight files of a folder.

    Args:
        path: Together they must hold `features.N.weight` and `.bias` of torchvision's VGG16 and `lin0` to `lin4` `.model.1.weight` of the
            lpips package (v0.1, vgg); a full state dict of `lpips.LPIPS(net="vgg")` does too. Pickles are read with `weights_only=True`.

    Raises:
        MissingError: There is no such file, or no weight file in the folder.
        InputError: A file is not readable, or a tensor is missing or has the wrong shape.
    """
    found: dict[str, Tensor] = {}
    for file in _files(Path(path)):
        found.update({_own_name(name): x for name, x in _read(file).items() if isinstance(x, Tensor)})
    weights = {}
    for name, shape in expected_shapes().items():
        if name not in found:
            raise InputError(
                f"{path}: {name!r} is missing; LPIPS needs torchvision's VGG16 weights and those of the lpips package (v0.1, vgg)"
            )
        if tuple(found[name].shape) != shape:
            raise InputError(f"{path}: {name!r} must be {list(shape)}, got {list(found[name].shape)}")
        weights[name] = found[name].float().requires_grad_(False)
    return Lpips(weights)


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    previous = 3
    for i, (numbers, channels) in enumerate(zip(_CONVOLUTIONS, _CHANNELS, strict=True)):
        for n in numbers:
            shapes[f"features.{n}.weight"] = (channels, previous, 3, 3)
            shapes[f"features.{n}.bias"] = (channels,)
            previous = channels
        shapes[f"lin{i}.model.1.weight"] = (1, channels, 1, 1)
    return shapes


@cache
def _standard(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Shift and scale [3, 1, 1], sent to a device once: a captured iteration cannot wait for it."""
    shift, scale = (torch.tensor(x, dtype=dtype, device=device).view(3, 1, 1) for x in (_SHIFT, _SCALE))
    return shift, scale


def _unit(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each pixel's features at unit length. The small term keeps the gradient finite where all features are zero."""
    return x / ((x.square().sum(1, keepdim=True) + _EPS**2).sqrt() + _EPS)


def _own_name(name: str) -> str:
    """lpips keeps VGG16 as `net.slice1.0.weight` with torchvision's numbers, and each `lin` a second time under `lins`."""
    return re.sub(r"^net\.slice\d\.", "features.", name)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in _SUFFIXES)
        if not files:
            raise MissingError(f"{path}: holds no weight file ({', '.join(_SUFFIXES)})")
        return files
    if not path.is_file():
        raise MissingError(f"{path}: no such file or folder of LPIPS weights")
    return [path]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and torch's unpickler fail on damaged files each in its own way
        raise InputError(
            f"{file}: not readable as weights ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold a dictionary of tensors, got {type(content).__name__}")
    return content
