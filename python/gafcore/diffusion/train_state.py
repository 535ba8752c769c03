"""Checkpoints of a training: safetensors and JSON, enough to go on as if nothing had happened.

Everything random follows from seed, step and sample, so a checkpoint holds weights, their average, Adam's moments and the losses so far.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gafcore.diffusion.train_config import TrainConfig
from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_folder, read_json

_NAME = re.compile(r"^step-(\d{8})$")
_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
# What may change between a run and its continuation: how long, how often, where and how fast, never what is learned.
_FREE = ("steps", "checkpoint_every", "checkpoint_limit", "validate_every", "n_validation", "validation_steps", "tensorboard", "tflops",
         "workers", "micro_batch", "gradient_checkpointing", "vae", "clip", "init")  # fmt: skip


@dataclass
class TrainState:
    """Attributes:
    model: What learns.
    optimizer: AdamW over its parameters.
    ema: diffusers' EMAModel, or None.
    step: Steps done.
    losses: Mean loss of every step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Any | None
    step: int = 0
    losses: list[float] = field(default_factory=list)


def settings(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON has it."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first."""
    found = [p for p in folder.glob("step-*") if _NAME.match(p.name) and all((p / f).is_file() for f in _FILES)]
    return sorted(found, key=lambda p: p.name)


def save(state: TrainState, config: TrainConfig, folder: Path) -> Path:
    """Write a checkpoint, then remove the oldest beyond the limit."""
    path = folder / f"step-{state.step:08d}"
    with atomic_folder(path, lambda p: [f.name for f in p.iterdir() if f.name not in _FILES]) as new:
        new.mkdir()
        save_file(_contiguous(dict(state.model.named_parameters())), new / _FILES[0])
        shadow = [] if state.ema is None else state.ema.shadow_params
        save_file(_contiguous({f"{i:05d}": x for i, x in enumerate(shadow)}), new / _FILES[1])
        save_file(_contiguous(_moments(state.optimizer)), new / _FILES[2])
        content = {"step": state.step, "config": settings(config), "losses": state.losses}
        (new / _FILES[3]).write_text(json.dumps(content), encoding="utf-8")
    for old in checkpoints(folder)[: -config.checkpoint_limit]:
        shutil.rmtree(old)
    return path


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().contiguous().cpu() for name, x in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    content = optimizer.state_dict()["state"]
    return {f"{i:05d}.{name}": torch.as_tensor(x) for i, row in content.items() for name, x in row.items()}


def resume(state: TrainState, config: TrainConfig, folder: Path) -> Path:
    """Fill `state` from the newest checkpoint.

    Raises:
        MissingError: There is none.
        InputError: It is damaged, or the settings are others; the message names them.
    """
    found = checkpoints(folder)
    if not found:
        raise MissingError(f"{folder}: no checkpoint to resume from")
    path = found[-1]
    content = read_json(path / _FILES[3])
    old, now = content.get("config", {}), settings(config)
    differs = [k for k in now if k not in _FREE and old.get(k) != now[k]]
    if differs:
        given = "; ".join(f"{k} was {old.get(k)!r}, is {now[k]!r}" for k in differs)
        raise InputError(f"{path}: was made with other settings ({given}); resume with the same, or name another folder")
    try:
        _fill(state, path)
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: damaged, or of another network ({error}); remove the folder to resume from an older one") from None
    state.step, state.losses = int(content["step"]), [float(x) for x in content["losses"]]
    return path


def _fill(state: TrainState, path: Path) -> None:
    weights = load_file(path / _FILES[0])
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(weights[name])
    if state.ema is not None:
        shadow = load_file(path / _FILES[1])
        for i, x in enumerate(state.ema.shadow_params):
            x.copy_(shadow[f"{i:05d}"])
        state.ema.optimization_step = int(read_json(path / _FILES[3])["step"])
    rows: dict[int, dict[str, Tensor]] = {}
    for name, x in load_file(path / _FILES[2]).items():
        number, _, kind = name.partition(".")
        rows.setdefault(int(number), {})[kind] = x
    state.optimizer.load_state_dict({"state": rows, "param_groups": state.optimizer.state_dict()["param_groups"]})
