"""A number a vertex that stays smooth while gradients move it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor


class SmoothField:
    """start + (1 + stiffness L)^-1 u with u moved by Adam; L is the graph's Laplacian, each row divided by its vertex's degree.

    The change of variables is Nicolet et al.'s ("Large Steps in Inverse Rendering of Geometry", 2021): a gradient at one vertex moves its
    surroundings along, so an outline, which is seen along lines, moves surfaces, and what nothing sees follows its neighbours.
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
        self._rough = torch.zeros(n, dtype=torch.float64, requires_grad=True)
        self._adam = torch.optim.Adam([self._rough], lr=rate)

    def values(self) -> Float[Tensor, "R"]:
        smooth = torch.from_numpy(self._solve(self._degree * self._rough.detach().numpy()))
        return self._start + smooth.to(self._start)

    def step(self, gradient: Float[Tensor, "R"], part: float = 1.0) -> None:
        """One of Adam's steps against the gradient by `values()`, with `part` of the rate."""
        self._rough.grad = torch.from_numpy(self._degree * self._solve(gradient.double().cpu().numpy()))
        self._adam.param_groups[0]["lr"] = part * self._rate
        self._adam.step()
