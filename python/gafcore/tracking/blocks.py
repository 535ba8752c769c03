"""The linear system of a Gauss-Newton step over a clip: a block a frame, first differences between neighbours, a border of shared unknowns.

    [ D_1  -W_1            B_1 ] [x_1]   [g_1]
    [ -W_1  D_2  -W_2      B_2 ] [x_2] = [g_2]
    [       ...            ... ] [...]   [...]
    [ B_1'  B_2'  ...       C  ] [ y ]   [ h ]

D_t are dense and positive definite, W_t diagonal: the differences of a random walk couple a parameter only with itself.
Costs T (P^3 + P^2 S), not (T P + S)^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.tracking.threads import side_by_side


def solve_blocks(
    diagonal: Float[Tensor, "T P P"],
    coupling: Float[Tensor, "T-1 P"] | None,
    gradient: Float[Tensor, "T P"],
    border: Float[Tensor, "T P S"] | None = None,
    corner: Float[Tensor, "S S"] | None = None,
    corner_gradient: Float[Tensor, "S"] | None = None,
) -> tuple[Float[Tensor, "T P"], Float[Tensor, "S"] | None, Float[Tensor, "S S"] | None]:
    """Solve the system above; `coupling` is W (None: frames are independent), `border` None leaves the shared unknowns out.

    Returns:
        x, y, and the Schur complement of the border, whose inverse is the covariance of the shared unknowns; None without a border.

    Raises:
        torch.linalg.LinAlgError: The matrix is not positive definite.
    """
    right = gradient[..., None] if border is None else torch.cat([gradient[..., None], border], -1)
    solved = _independent(diagonal, right) if coupling is None else _chain(diagonal, coupling, right)
    if border is None:
        return solved[..., 0], None, None
    assert corner is not None and corner_gradient is not None
    schur = corner - torch.einsum("tps,tpq->sq", border, solved[..., 1:])
    schur = (schur + schur.T) / 2
    shared = torch.cholesky_solve(
        (corner_gradient - torch.einsum("tps,tp->s", border, solved[..., 0]))[:, None], torch.linalg.cholesky(schur)
    )
    return (solved[..., :1] - solved[..., 1:] @ shared)[..., 0], shared[:, 0], schur


def _independent(diagonal: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right, torch.linalg.cholesky(diagonal))


def _chain(diagonal: Tensor, coupling: Tensor, right: Tensor) -> Tensor:
    """Block Thomas algorithm from both ends at once: eliminate towards the middle frame, substitute back from it."""
    middle = len(diagonal) // 2
    halves = [range(middle), range(len(diagonal) - 1, middle, -1)]
    eliminated: list[_Half] = side_by_side(lambda order: _eliminate(diagonal, coupling, right, order, middle), halves)
    block, reduced = diagonal[middle], right[middle]
    for half in eliminated:
        block, reduced = block - half.block, reduced + half.right
    at_middle = torch.cholesky_solve(reduced, torch.linalg.cholesky(block))
    solved: list[list[Tensor]] = side_by_side(lambda half: _substitute(half, coupling, at_middle), eliminated)
    return torch.stack([*solved[0][::-1], at_middle, *solved[1]])


@dataclass(frozen=True)
class _Half:
    """Frames eliminated in order, each with its inverse block and right side.

    `block` is to be subtracted from, and `right` added to, those of the frame next to the last one.
    """

    order: range
    inverse: list[Tensor]  # [P, P]
    reduced: list[Tensor]  # [P, S]
    block: Tensor
    right: Tensor


def _eliminate(diagonal: Tensor, coupling: Tensor, right: Tensor, order: range, last: int) -> _Half:
    inverse, reduced = [], []
    block, add = torch.zeros_like(diagonal[last]), torch.zeros_like(right[last])
    for t in order:
        w = coupling[min(t, t + order.step)][:, None]
        reduced.append(right[t] + add)
        inverse.append(torch.cholesky_inverse(torch.linalg.cholesky(diagonal[t] - block)))
        block, add = w * inverse[-1] * w.T, w * (inverse[-1] @ reduced[-1])
    return _Half(order, inverse, reduced, block, add)


def _substitute(half: _Half, coupling: Tensor, x: Tensor) -> list[Tensor]:
    """The solution of the half's frames, the one next to the middle first; `x` is the middle's."""
    solved = []
    for t, inverse, reduced in zip(half.order[::-1], half.inverse[::-1], half.reduced[::-1], strict=True):
        x = inverse @ (reduced + coupling[min(t, t + half.order.step)][:, None] * x)
        solved.append(x)
    return solved
