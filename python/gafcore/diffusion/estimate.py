"""What a training will take, worked out before it starts: operations counted on shapes alone, memory from what a pass would keep."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from gafcore.attention.choice import backend_within
from gafcore.diffusion.encoded import EncodedSample
from gafcore.diffusion.objectives import Objective
from gafcore.diffusion.sample import ViewSample
from gafcore.diffusion.train_config import TrainConfig

_GIB = 2**30


@register_flop_formula(torch.ops.gafcore.multiview_attention)
def _attention_flops(q, k, v, ref_k, *args, out_shape=None, **kwargs) -> int:  # noqa: ARG001
    """Two products of queries with keys and with values."""
    n_batch, n_queries, n_heads, head_dim = q
    return 4 * n_batch * n_heads * n_queries * (k[1] + (0 if ref_k is None else ref_k[1])) * head_dim


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    parameters: That learn.
    flops_per_sample: Forward and backward, recomputation included.
    state_bytes: Weights, gradients, Adam's moments and average of one process, single precision.
    activation_bytes: Kept for the backward pass by one process's batch.
    """

    parameters: int
    flops_per_sample: float
    state_bytes: int
    activation_bytes: int

    def summary(self, config: TrainConfig, n_processes: int) -> str:
        """Two lines. The time is arithmetic on an assumed speed, and says so."""
        total = self.flops_per_sample * config.batch * config.steps
        hours = total / (config.tflops * 1e12) / 3600
        memory = (self.state_bytes + self.activation_bytes) / _GIB
        return (
            f"memory, estimated: {self.parameters / 1e6:.1f} M parameters, {self.state_bytes / _GIB:.2f} GiB for weights and moments + "
            f"{self.activation_bytes / _GIB:.2f} GiB kept for the backward pass = {memory:.2f} GiB a process, "
            f"frozen networks, temporaries and fragmentation aside\n"
            f"time, estimated: {total:.3g} operations ({self.flops_per_sample / 1e12:.3g} TFLOP a sample, batch {config.batch}, "
            f"{config.steps} steps, {n_processes} processes) = {hours:.3g} hours at an assumed {config.tflops:g} TFLOP/s in all"
        )


def estimate(model: nn.Module, objective: Objective, sample: EncodedSample | ViewSample, config: TrainConfig, micro: int) -> Estimate:
    """Count one sample's pass on the meta device, where nothing is computed.

    Args:
        model: What learns, already set to gradient checkpointing where wanted; it is copied.
        objective: Its loss.
        sample: One sample; only its shapes matter.
        config: Settings.
        micro: Samples a process takes at once.
    """
    with torch.device("meta"):
        shadow = copy.deepcopy(model).to("meta").train()
    half = config.precision != "no"
    shapes: dict[str, Any] = {name: torch.empty((1, *x.shape), device="meta") for name, x in sample.tensors()}
    batch = replace(sample, **shapes)
    kept: dict[int, int] = {}
    own = {id(p) for p in shadow.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if id(x) not in own:
            # Shapes on the meta device are in single precision; under autocast most of them would take half.
            kept[id(x)] = x.numel() * (2 if half and x.is_floating_point() else x.element_size())
            alive.append(x)
        return x

    alive: list[torch.Tensor] = []  # or ids would be used again
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    # The fused operation keeps what a flash kernel keeps, on any device.
    with backend_within("triton"), FlopCounterMode(display=False) as counter, hooks:
        objective(shadow, batch, [torch.Generator()])
    forward = float(counter.get_total_flops())
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 5 if config.ema_decay else 4  # weights, gradients, two moments, average
    passes = 4 if config.gradient_checkpointing else 3  # a backward pass is two forward ones
    return Estimate(parameters, passes * forward, 4 * copies * parameters, micro * sum(kept.values()))
