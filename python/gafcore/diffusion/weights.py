"""Weights of Stable Diffusion 2.1, ImageDream and MVDream into a `MultiViewUNet`, with every tensor accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gafcore.diffusion.unet import MultiViewUNet
from gafcore.diffusion.weights_ldm import from_ldm, is_ldm
from gafcore.errors import InputError, MissingError

_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin")
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_SHOWN = 12


@dataclass
class LoadReport:
    """What became of every tensor.

    Attributes:
        loaded: Model parameter and the file's name for it.
        inflated: Model parameters that got the file's values in part, zeros elsewhere, with both shapes.
        unused: The file's tensors that this model has no place for, and why.
        fresh: Model parameters that the file has nothing for and that stay as initialised, and why.
    """

    source: Path
    loaded: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        lines += [f"inflated {name}: {how}" for name, how in self.inflated.items()]
        for title, group in (("not used", self.unused), ("new", self.fresh)):
            reasons: dict[str, int] = {}
            for reason in group.values():
                reasons[reason] = reasons.get(reason, 0) + 1
            lines += [f"{title}: {count} ({reason})" for reason, count in reasons.items()]
        return "\n".join(lines)


def find_weights(path: str | Path) -> Path:
    """The UNet's file of a diffusers folder (with or without `unet/`), or the single file itself.

    Raises:
        MissingError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    folders = [path / "unet", path]
    for candidate in (folder / name for folder in folders for name in _FILES):
        if candidate.is_file():
            return candidate
    singles = [p for p in sorted(path.glob("*")) if p.suffix in _SUFFIXES] if path.is_dir() else []
    if len(singles) == 1:
        return singles[0]
    found = f"; found {', '.join(p.name for p in singles)}, name one of them" if singles else ""
    raise MissingError(
        f"{path}: no UNet weights; expected a file, or a folder with unet/{_FILES[0]} as diffusers writes it, or one checkpoint{found}"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, or of a PyTorch file through its restricted unpickler.

    Raises:
        InputError: The file is damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what the two readers raise on damaged files is not documented
        raise InputError(f"{path}: not readable as weights ({type(error).__name__}: {str(error).splitlines()[0][:200]})") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def load_pretrained(model: MultiViewUNet, path: str | Path) -> LoadReport:
    """Copy a pretrained UNet into `model`, whose sizes must fit it; parameters keep the model's dtype and device.

    Accepts diffusers' names (Stable Diffusion 2.1) and the original ones (a Stable Diffusion file; MVDream and ImageDream as published or
    as a folder). `conv_in` gets zeros for the channels that the file's does not have, so that the model starts as the pretrained one.
    ImageDream's keys and values for picture tokens take the place of those for text.

    Raises:
        MissingError: There is no file.
        InputError: A tensor of the file or of the model is left over without a reason, or shapes differ; the message lists them.
    """
    source = find_weights(path)
    tensors = read_tensors(source)
    report = LoadReport(source)
    named, report.unused = from_ldm(tensors, model) if is_ldm(tensors) else _from_diffusers(tensors)
    return _copy(model, named, report)


def _from_diffusers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str]]:
    """Names inside `MultiViewUNet` for diffusers' names; a file of our own has them already."""
    own = any(name.startswith("unet.") for name in tensors)
    return {name if own else f"unet.{name}": (name, value) for name, value in tensors.items()}, {}


def _copy(model: MultiViewUNet, named: dict[str, tuple[str, Tensor]], report: LoadReport) -> LoadReport:
    state = model.state_dict()
    wrong: list[str] = []
    values: dict[str, Tensor] = {}
    for name, (origin, value) in named.items():
        if name not in state:
            reason = _no_place(model, name)
            if reason is None:
                wrong.append(f"{origin} (no parameter of the model)")
            else:
                report.unused[origin] = reason
            continue
        fitted = _fit(name, value, state[name], report)
        if fitted is None:
            wrong.append(f"{origin} {list(value.shape)} (the model has {list(state[name].shape)})")
            continue
        values[name], report.loaded[name] = fitted, origin
    for name in state.keys() - named.keys():
        reason = _may_be_fresh(model, name)
        if reason is None:
            wrong.append(f"{name} {list(state[name].shape)} (of the model; not in the file)")
        else:
            report.fresh[name] = reason
    if wrong:
        rest = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{report.source}: does not fit this model: {'; '.join(sorted(wrong)[:_SHOWN])}{rest}")
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)  # the state holds the parameters themselves
    return report


def _fit(name: str, value: Tensor, have: Tensor, report: LoadReport) -> Tensor | None:
    """`value` in the shape of the parameter, or None: 1x1 convolutions as linear layers, and further input channels as zeros."""
    if value.shape == have.shape:
        return value
    if value.dim() == 4 and have.dim() == 2 and value.shape[2:] == (1, 1) and value.shape[:2] == have.shape:
        return value[:, :, 0, 0]
    if name == "unet.conv_in.weight" and value.dim() == 4 and value.shape[1] < have.shape[1]:
        if (value.shape[0], *value.shape[2:]) != (have.shape[0], *have.shape[2:]):
            return None
        out = value.new_zeros(have.shape)
        out[:, : value.shape[1]] = value
        report.inflated[name] = f"{list(value.shape)} to {list(have.shape)}, zeros behind"
        return out
    return None


_Rule = tuple[Callable[[MultiViewUNet, str], bool], str]

_UNUSED: tuple[_Rule, ...] = (
    (lambda m, n: n.startswith("unet.class_embedding.") and m.config.condition != "pose", "camera embedding; the model has no poses"),
    (
        lambda m, n: n.startswith("tokens.") and m.config.image_embedding != "resampler",
        "picture resampler; the model has a global embedding",
    ),
)
_FRESH: tuple[_Rule, ...] = (
    (lambda _, n: n.startswith("tokens."), "picture tokens"),
    (lambda m, n: n.startswith("unet.class_embedding.") and m.config.condition == "pose", "camera embedding"),
)


def _first(rules: tuple[_Rule, ...], model: MultiViewUNet, name: str) -> str | None:
    return next((reason for applies, reason in rules if applies(model, name)), None)


def _no_place(model: MultiViewUNet, name: str) -> str | None:
    return _first(_UNUSED, model, name)


def _may_be_fresh(model: MultiViewUNet, name: str) -> str | None:
    return _first(_FRESH, model, name)
