"""The block solver against one dense solve of the same system."""

from __future__ import annotations

import pytest
import torch

from gafcore.tracking.blocks import solve_blocks


def _system(n_frames, size, n_shared, coupled, seed=0):
    g = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    root = random(n_frames, size + n_shared, size + n_shared + 3)
    whole = root @ root.mT  # each frame's terms are a square of frame and shared unknowns
    diagonal, border, corner = whole[:, :size, :size].clone(), whole[:, :size, size:], whole[:, size:, size:].sum(0)
    coupling = random(n_frames - 1, size).abs() if coupled else None
    if coupling is not None:
        diagonal[:-1].diagonal(dim1=1, dim2=2).add_(coupling)
        diagonal[1:].diagonal(dim1=1, dim2=2).add_(coupling)
    return diagonal, coupling, random(n_frames, size), border, corner, random(n_shared)


def _dense(diagonal, coupling, border, corner):
    size = diagonal.shape[1]
    matrix = torch.block_diag(*diagonal)
    if coupling is not None:
        for t, w in enumerate(coupling):
            here, there = slice(t * size, (t + 1) * size), slice((t + 1) * size, (t + 2) * size)
            matrix[here, there] -= torch.diag(w)
            matrix[there, here] -= torch.diag(w)
    side = border.flatten(0, 1)
    return torch.cat([torch.cat([matrix, side], 1), torch.cat([side.T, corner], 1)])


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_matches_a_dense_solve(n_frames, coupled):
    diagonal, coupling, gradient, border, corner, corner_gradient = _system(n_frames, 5, 3, coupled)
    matrix = _dense(diagonal, coupling, border, corner)
    want = torch.linalg.solve(matrix, torch.cat([gradient.flatten(), corner_gradient]))
    x, y, information = solve_blocks(diagonal, coupling, gradient, border, corner, corner_gradient)
    torch.testing.assert_close(torch.cat([x.flatten(), y]), want)
    torch.testing.assert_close(torch.linalg.inv(information), torch.linalg.inv(matrix)[-3:, -3:])


def test_without_a_border():
    diagonal, coupling, gradient, border, corner, _ = _system(6, 4, 2, True)
    matrix = _dense(diagonal, coupling, border, corner)[:24, :24]
    x, y, information = solve_blocks(diagonal, coupling, gradient)
    torch.testing.assert_close(x.flatten(), torch.linalg.solve(matrix, gradient.flatten()))
    assert y is None
    assert information is None


def test_an_indefinite_matrix_is_refused():
    diagonal, coupling, gradient, *_ = _system(3, 4, 2, True)
    with pytest.raises(torch.linalg.LinAlgError):
        solve_blocks(-diagonal, coupling, gradient)
