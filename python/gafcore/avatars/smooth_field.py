"""A number a vertex that stays smooth while gradients move it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

_LEAST = 0.3  # of the largest gradient: smaller ones do not count for more than they are
_BETA_1, _BETA_2, _SMALLEST = 0.9, 0.999, 1e-30


class SmoothField:
    """start + (1 + stiffness L)^-1 u with u moved by gradients; L is the graph's Laplacian, each row divided by its vertex's degree.

    Change of variables and steps are Nicolet et al.'s ("Large Steps in Inverse Rendering of Geometry", 2021). A gradient at one vertex
    moves its surroundings along, so an outline, which is seen along lines, moves surfaces. The steps are Adam's, but their scales have a
    part of the largest added (theirs is the largest alone): else what hardly shows would move as fast as what does.
    """

    def __init__(self, start: Float[Tensor, "R"], edges: Int[Tensor, "E 2"], stiffness: float, rate: float) -> None:
        n = len(start)
        i, j = edges.cpu().numpy().T
        adjacency = sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)).tocsc()
        self._degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1.0)
        # Times the degrees, so that it is symmetric: D + stiffness (D - A).
        laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
        self._solve = splu((sparse.diags(self._degree) + stiffness * laplacian).tocsc()).solve
        self._start, self._rate = start, rate
        self._rough = torch.zeros(n, dtype=torch.float64)
        self._mean, self._square, self._steps = torch.zeros_like(self._rough), torch.zeros_like(self._rough), 0

    def values(self) -> Float[Tensor, "R"]:
        smooth = torch.from_numpy(self._solve(self._degree * self._rough.numpy()))
        return self._start + smooth.to(self._start)

    def step(self, gradient: Float[Tensor, "R"], part: float = 1.0) -> None:
        """One step against the gradient by `values()`, at most `part` of the rate long."""
        rough = torch.from_numpy(self._degree * self._solve(gradient.double().cpu().numpy()))
        self._steps += 1
        self._mean = _BETA_1 * self._mean + (1 - _BETA_1) * rough
        self._square = _BETA_2 * self._square + (1 - _BETA_2) * rough.square()
        deviation = (self._square / (1 - _BETA_2**self._steps)).sqrt()
        scale = deviation + _LEAST * deviation.max() + _SMALLEST
        self._rough = self._rough - part * self._rate / (1 - _BETA_1**self._steps) * self._mean / scale
