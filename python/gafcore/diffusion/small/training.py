"""Training of the small prior: one thread a process, bfloat16 where the processor is fast at it; resumable to the same bits.

Where `torch.distributed` is initialised, its processes share the work: each draws its own batch, and gradients are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from gafcore.captures.synthetic.noise import generator
from gafcore.diffusion.small.network import NetworkConfig, SmallPriorNetwork
from gafcore.diffusion.small.noise import loss_weight, mix
from gafcore.diffusion.small.store import Batch, GrowingPeople, training_batch
from gafcore.errors import InputError
from gafcore.files import atomic_path

_GRADIENT_WEIGHT = 0.05  # of differences between neighbouring pixels, regression only: keeps edges that squared error would blur


@dataclass(frozen=True)
class TrainConfig:
    """What decides the weights."""

    task: Literal["regression", "diffusion"] = "regression"
    steps: int = 2800
    batch: int = 2
    learning_rate: float = 8e-4
    warmup: int = 100
    ema: float = 0.998
    weight_decay: float = 0.01
    clip: float = 1.0
    drop: float = 0.1  # of picture and warp together, diffusion only (GAF's rate)
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)


def _silent(step: int, loss: float) -> None:
    pass


def train(
    people: GrowingPeople,
    config: TrainConfig,
    folder: Path,
    *,
    start: Path | None = None,
    checkpoint_every: int = 250,
    stop: int | None = None,
    report: Callable[[int, float], None] = _silent,
) -> Path:
    """Train to `config.steps`, going on from `folder`'s checkpoint where there is one.

    Args:
        people: The data.
        config: What decides the weights.
        folder: For the checkpoint and the averaged weights.
        start: Weights to begin with.
        checkpoint_every: Steps.
        stop: Stop after so many steps, on the schedule of `config.steps`.
        report: Called with the step's number, from 1, and its loss.

    Returns:
        The file with the averaged weights.
    """
    torch.manual_seed(config.seed)
    network = SmallPriorNetwork(config.network)
    if start is not None:
        network.load_state_dict(load_file(start))
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    average = {name: x.detach().clone() for name, x in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = folder / "checkpoint.safetensors", folder / "weights.safetensors"
    first = _load(checkpoint, network, optimizer, average, config) if checkpoint.exists() else 0
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if world > 1:
        dist.barrier()  # nobody writes the checkpoint before all have read it
    last = config.steps if stop is None else min(stop, config.steps)
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = rate(config, step)
        draw = world * step + rank
        batch = training_batch(people, config.batch, config.network.views, config.seed, draw, config.network.condition)
        loss = _loss(network, batch, config, draw)
        optimizer.zero_grad()
        loss.backward()
        if world > 1:
            _share_gradients(network, world)
        clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        _average(average, network, min(config.ema, (1 + step) / (10 + step)))
        report(step + 1, float(loss.detach()))
        if rank == 0 and ((step + 1) % checkpoint_every == 0 or step + 1 == last):
            _save(checkpoint, network, optimizer, average, config, step + 1)
            with atomic_path(weights) as temporary:
                save_file(average, temporary, {"step": str(step + 1)})
    return weights


def _share_gradients(network: SmallPriorNetwork, world: int) -> None:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / world)


def rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * cooled(share)


def cooled(share: float) -> float:
    """Half a cosine from 1 down to a hundredth."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def _loss(network: SmallPriorNetwork, batch: Batch, config: TrainConfig, step: int) -> Tensor:
    if config.task == "regression":
        return regression_loss(network, batch)
    rng = generator(config.seed, f"noise {step}")
    chance = torch.rand(config.batch, generator=rng)
    noise = torch.randn(batch.targets.shape, generator=rng)
    return diffusion_loss(network, batch, chance, noise, torch.rand(config.batch, generator=rng) >= config.drop)


def regression_loss(network: SmallPriorNetwork, batch: Batch) -> Float[Tensor, ""]:
    """Squared error and a little of the difference of neighbouring pixels'."""
    level = torch.full((batch.fill.shape[0],), network.REGRESSION, device=batch.fill.device)
    made = _run(network, torch.zeros_like(batch.targets), level, batch)
    return (made - batch.targets).square().mean() + _GRADIENT_WEIGHT * _gradient_error(made, batch.targets)


def diffusion_loss(
    network: SmallPriorNetwork, batch: Batch, chance: Float[Tensor, "B"], noise: Float[Tensor, "B N 3 H W"], kept: Bool[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Weighted squared error of the clean views.

    Args:
        network: That denoises.
        batch: The sets.
        chance: Uniform in 0..1: where in its stratum each set's noise level lies.
        noise: Unit noise.
        kept: Where picture and warp are given.
    """
    size = batch.fill.shape[0]
    level = (torch.arange(size, device=chance.device) + chance) / size  # stratified over 0..1
    noisy = mix(batch.targets, noise, level)
    made = _run(network, noisy, level, dropped(batch, kept.float()))
    return ((made - batch.targets).square().mean((1, 2, 3, 4)) * loss_weight(level)).mean()


def dropped(batch: Batch, kept: Tensor) -> Batch:
    """Without the picture and all that came from it where `kept` [B] is 0: what guidance compares with. The normals stay."""
    keep = kept.view(-1, 1, 1, 1, 1)
    behind = (2 * batch.background - 1)[:, None, :, None, None].expand_as(batch.fill)
    conditions = torch.cat([batch.conditions[:, :, :1] * keep, batch.conditions[:, :, 1:]], 2)
    return replace(batch, image=batch.image * keep[:, 0], fill=batch.fill * keep + behind * (1 - keep), conditions=conditions)


def _run(network: SmallPriorNetwork, noisy: Tensor, level: Tensor, batch: Batch) -> Tensor:
    with torch.autocast(batch.fill.device.type, torch.bfloat16, cache_enabled=False):  # a cache has no place in a CUDA graph
        return network(noisy, level, batch.image, batch.fill, batch.conditions).float()


def _gradient_error(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


@torch.no_grad()
def _average(average: dict[str, Tensor], network: SmallPriorNetwork, keep: float) -> None:
    for name, x in network.state_dict().items():
        average[name].lerp_(x, 1 - keep)


def _save(
    path: Path, network: SmallPriorNetwork, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], config: TrainConfig, step: int
) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()} | {f"average.{k}": v for k, v in average.items()}
    for name, parameter in network.named_parameters():
        moments = optimizer.state[parameter]
        tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"step": str(step), "config": repr(config)})


def _load(path: Path, network: SmallPriorNetwork, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], config: TrainConfig) -> int:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["config"] != repr(config):
        raise InputError(f"{path}: is a checkpoint of another training ({metadata['config']}); name another folder")
    tensors, step = load_file(path), int(metadata["step"])
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    for name in average:
        average[name] = tensors[f"average.{name}"]
    for name, parameter in network.named_parameters():
        moments = {key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step
