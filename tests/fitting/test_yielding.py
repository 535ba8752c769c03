"""A loss that gives way to another where they disagree."""

from __future__ import annotations

import math

import torch

from gafcore.fitting.yielding import backward_yielding, without_conflict


def test_what_points_against_the_first_is_left_out_row_by_row():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    given = torch.tensor([[-2.0, 3.0], [2.0, 3.0], [-2.0, 3.0], [-5.0, -5.0]])
    # The last row: -7 along (0.6, 0.8) goes, (-5, -5) + 7 (0.6, 0.8) stays.
    expected = torch.tensor([[0.0, 3.0], [2.0, 3.0], [-2.0, 3.0], [-0.8, 0.6]])
    torch.testing.assert_close(without_conflict(given, first, 10.0), expected)
    # At most three times the first: the last row keeps 4 of its 7.
    torch.testing.assert_close(without_conflict(given, first, 3.0)[3], torch.tensor([-3.2, -2.6]))
    torch.testing.assert_close(without_conflict(given, first, math.inf), expected)
    assert torch.equal(without_conflict(given, first, 0.0), given)


def test_rows_of_numbers_and_of_matrices():
    assert without_conflict(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 0.5]), 5.0).tolist() == [0, 1]
    first = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]])
    assert without_conflict(torch.tensor([[[-1.0, -1.0]], [[-1.0, 1.0]]]), first, 5.0).tolist() == [[[0, 0]], [[-1, 1]]]


def test_nothing_is_asked_of_a_loss_when_nothing_moves():
    backward_yielding(torch.tensor(3.0), [], 1.0)


def test_gradients_are_added_to_those_that_are_there():
    a, b, c = (torch.zeros(2, requires_grad=True) for _ in range(3))
    (a * torch.tensor([1.0, 2.0])).sum().backward()
    backward_yielding((a * torch.tensor([-3.0, 4.0])).sum() + (b * torch.tensor([5.0, -6.0])).sum(), [a, b, c], 5.0)
    assert a.grad.tolist() == [1, 6]
    assert b.grad.tolist() == [5, -6]
    assert c.grad is None
