"""Two losses of unequal standing: where they pull a Gaussian apart, the lesser one gives way.

The training pictures are measured, a prior's views are guessed. The greater loss is that of the training picture with the penalties on
positions and scales, which hold Gaussians on the rig and have no say beside the prior otherwise. Where the guess's gradient points against
its (row by row: each tensor of each Gaussian by itself), what points against it is left out (the projection of PCGrad, Yu et al. 2020, in
one direction only), but no more of it than so many times its gradient. So Gaussians that the pictures show well follow them. Those that
the pictures hardly show, whose gradients are small but not zero, still follow the prior: left out entirely, a bun behind the head did not
grow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = 1e-30  # of squared gradients: without one, nothing is left out


def backward_yielding(loss: Float[Tensor, ""], tensors: Sequence[Tensor], most: float) -> None:
    """Add the gradients of `loss` to those that leaf `tensors` have already, giving way to them in every row (first dimension).

    Tensors that `loss` does not depend on stay as they are; those without a gradient get the loss's own. Nothing waits for the device.
    Of the graph that gave those gradients, `loss` may share only what saves no tensors: that backward pass has freed them.
    """
    if not tensors:  # nothing to be moved, so `loss` may have no graph at all
        return
    for x, given in zip(tensors, torch.autograd.grad(loss, tensors, allow_unused=True), strict=True):
        if given is not None:
            x.grad = given if x.grad is None else x.grad + without_conflict(given, x.grad, most)


def without_conflict(given: Float[Tensor, "N *C"], first: Float[Tensor, "N *C"], most: float) -> Float[Tensor, "N *C"]:
    """`given` without its part against `first` in each row, of which at most `most` times the length of `first` is left out."""
    a, b = given.reshape(given.shape[0], -1), first.reshape(first.shape[0], -1)
    against = -(a * b).sum(1, keepdim=True) / b.square().sum(1, keepdim=True).clamp(min=_TINY)
    return (a + against.clamp(0, most) * b).view_as(given)
