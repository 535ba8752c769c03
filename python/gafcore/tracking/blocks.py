"""The linear system of a Gauss-Newton step over a clip: a block a frame, first differences between neighbours, a border of shared unknowns.

    [ D_1  -W_1            B_1 ] [x_1]   [g_1]
    [ -W_1  D_2  -W_2      B_2 ] [x_2] = [g_2]
    [       ...            ... ] [...]   [...]
    [ B_1'  B_2'  ...       C  ] [ y ]   [ h ]

D_t are dense and positive definite, W_t diagonal: the differences of a random walk couple a parameter only with itself.
Costs T (P^3 + P^2 S), not (T P + S)^3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


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
    """Block Thomas algorithm: eliminate forwards, substitute backwards."""
    n = len(diagonal)
    factors = [torch.linalg.cholesky(diagonal[0])]
    reduced = [right[0]]
    for t in range(1, n):
        w = coupling[t - 1]
        block = diagonal[t] - w[:, None] * torch.cholesky_inverse(factors[-1]) * w
        reduced.append(right[t] + w[:, None] * torch.cholesky_solve(reduced[-1], factors[-1]))
        factors.append(torch.linalg.cholesky(block))
    solved = [torch.cholesky_solve(reduced[-1], factors[-1])]
    for t in range(n - 2, -1, -1):
        solved.append(torch.cholesky_solve(reduced[t] + coupling[t][:, None] * solved[-1], factors[t]))
    return torch.stack(solved[::-1])
