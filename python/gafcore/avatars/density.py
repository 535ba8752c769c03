"""Density control in the triangles' frames: where Gaussians are added and removed while an avatar is fitted.

After 3D Gaussian Splatting and GaussianAvatars, with a fixed scene extent instead of the spread of the cameras (which is zero for
one static camera), split noise drawn with the local standard deviation, and a cap on the count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SPLIT_SHRINK = 1.6  # each half of a split Gaussian is this much smaller (0.8 x 2 in the original)
_LOG_SPLIT_SHRINK = float(torch.log(torch.tensor(_SPLIT_SHRINK)))  # in the precision of what it is taken from


@dataclass(frozen=True)
class DensityConfig:
    """When Gaussians are added and removed."""

    start: int = 300
    """First iteration at which Gaussians may be added or removed."""
    every: int = 300
    """Iterations from one round to the next."""
    until: int = 5000
    """No round after this iteration, nor in the last sixth of a run."""
    grad_threshold: float = 2e-4
    """Mean screen-space gradient above which a Gaussian is cloned or split; per half image (normalised device coordinates)."""
    split_scale_m: float = 0.01
    """Gaussians with a world standard deviation above this are split, smaller ones cloned; metres (1 % of a 1 m scene)."""
    prune_opacity: float = 0.005
    """Gaussians fainter than this are removed, except the last one of a triangle."""
    max_gaussians: int = 100_000
    """No more Gaussians than this; the largest gradients go first. The initial one a triangle is always allowed."""


@dataclass(frozen=True)
class DensityStats:
    """What was seen since the last round: sum of gradient norms and number of views in which each Gaussian was visible."""

    grad_sum: Float[Tensor, "N"]
    views: Float[Tensor, "N"]


@dataclass(frozen=True)
class DensityStep:
    """A round's outcome. New Gaussian i continues old `source[i]`; `fresh` marks those whose optimiser state starts from zero."""

    source: Int[Tensor, "M"]
    fresh: Bool[Tensor, "M"]
    tensors: dict[str, Tensor]
    n_cloned: int
    n_split: int
    n_pruned: int


def empty_stats(n: int, device: torch.device | str = "cpu") -> DensityStats:
    return DensityStats(torch.zeros(n, device=device), torch.zeros(n, device=device))


def accumulate(
    stats: DensityStats, v_means2d: Float[Tensor, "C N 2"], visible: Bool[Tensor, "C N"], width: int, height: int
) -> DensityStats:
    """Add one step's gradients. `v_means2d` is per pixel; times half the image size it is the gradient that thresholds refer to."""
    # Two products with numbers: a tensor of them would have to be sent to the device, which a captured iteration cannot wait for.
    norms = torch.stack([v_means2d[..., 0] * (width / 2), v_means2d[..., 1] * (height / 2)], -1).norm(dim=-1) * visible
    return DensityStats(stats.grad_sum + norms.sum(0), stats.views + visible.sum(0))


def is_round(config: DensityConfig, iteration: int, iterations: int) -> bool:
    """Whether a round follows iteration number `iteration` (from 1) of `iterations`."""
    last = min(config.until, iterations * 5 // 6)
    return config.start <= iteration <= last and iteration % config.every == 0


def densify_and_prune(
    tensors: dict[str, Tensor],
    binding: Int[Tensor, "N"],
    triangle_sizes: Float[Tensor, "F"],
    stats: DensityStats,
    config: DensityConfig,
    generator: torch.Generator,
) -> DensityStep:
    """One round of cloning, splitting and pruning.

    Args:
        tensors: The avatar's parameters by name (`RiggedAvatar.parameters`), first dimension N.
        binding: Triangle of each Gaussian; children inherit it.
        triangle_sizes: World size of each triangle, metres: what turns a local scale into metres.
        stats: Gradients since the last round.
        config: Thresholds.
        generator: Source of the split noise.

    Returns:
        The new tensors (binding under "binding"), in the order: survivors, clones, halves of splits.
    """
    n = binding.shape[0]
    grad = stats.grad_sum / stats.views.clamp(min=1)
    chosen = _within_cap(grad, grad > config.grad_threshold, config.max_gaussians - n)
    largest_m = tensors["log_scales"].exp().amax(dim=-1) * triangle_sizes[binding]
    split = chosen & (largest_m > config.split_scale_m)
    doomed = prunable(binding, tensors["opacity_logits"], config.prune_opacity, triangle_sizes.shape[0], leaving=split)
    keep, clone = ~split & ~doomed, chosen & ~split & ~doomed
    # The one look at the device in a round: how many rows there will be.
    n_kept, n_cloned, n_split, n_pruned = torch.stack([x.sum() for x in (keep, clone, split, doomed)]).tolist()
    halves_of = ids(split, n_split)
    source = torch.cat([ids(keep, n_kept), ids(clone, n_cloned), halves_of, halves_of])
    moved = {name: x[source] for name, x in tensors.items()}
    halves = slice(n_kept + n_cloned, None)
    moved["means"][halves] += _local_noise(moved["quats"][halves], moved["log_scales"][halves], generator)
    moved["log_scales"][halves] -= _LOG_SPLIT_SHRINK
    moved["binding"] = binding[source]
    fresh = torch.arange(source.shape[0], device=source.device) >= n_kept
    return DensityStep(source, fresh, moved, n_cloned, n_split, n_pruned)


def ids(mask: Bool[Tensor, "N"], count: int) -> Int[Tensor, "M"]:
    """The `count` positions where `mask` holds, ascending. Unlike `nonzero`, it need not ask a GPU how many there are."""
    return torch.argsort((~mask).to(torch.uint8), stable=True)[:count]


def prunable(
    binding: Int[Tensor, "N"],
    opacity_logits: Float[Tensor, "N"],
    threshold: float,
    n_triangles: int,
    leaving: Bool[Tensor, "N"] | None = None,
) -> Bool[Tensor, "N"]:
    """Gaussians fainter than `threshold` whose triangle keeps another one. `leaving` are replaced by children of the same triangle."""
    faint = torch.sigmoid(opacity_logits) < threshold
    if leaving is not None:
        faint &= ~leaving
    counts, n_faint = (torch.zeros(n_triangles, dtype=torch.int64, device=binding.device) for _ in range(2))
    counts.index_add_(0, binding, torch.ones_like(binding))
    n_faint.index_add_(0, binding, faint.long())
    by_opacity = torch.argsort(opacity_logits, stable=True)
    by_triangle = by_opacity[torch.argsort(binding[by_opacity], stable=True)]
    most_opaque = by_triangle[(counts.cumsum(0) - 1)[binding]]  # the last of each triangle's group
    emptied = (n_faint == counts)[binding]
    return faint & ~(emptied & (most_opaque == torch.arange(binding.shape[0], device=binding.device)))


def _within_cap(grad: Tensor, chosen: Bool[Tensor, "N"], room: int) -> Bool[Tensor, "N"]:
    """The `room` largest gradients of the chosen (each clone and each split adds one Gaussian)."""
    order = torch.argsort(torch.where(chosen, grad, -torch.inf), descending=True, stable=True)
    kept = torch.zeros_like(chosen)
    return kept.index_fill_(0, order[: max(room, 0)], True) & chosen


def _local_noise(quats: Float[Tensor, "N 4"], log_scales: Float[Tensor, "N 3"], generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """A draw from each Gaussian about its own mean, in its triangle's frame: local noise with the local standard deviation."""
    noise = torch.randn(log_scales.shape, generator=generator).to(log_scales) * log_scales.exp()
    w, vector = torch.nn.functional.normalize(quats, dim=-1).split([1, 3], dim=-1)
    twice = 2 * torch.linalg.cross(vector, noise)
    return noise + w * twice + torch.linalg.cross(vector, twice)
