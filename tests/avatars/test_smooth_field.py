from __future__ import annotations

import pytest
import torch

from gafcore.avatars.smooth_field import SmoothField


def chain(n: int) -> torch.Tensor:
    ahead = torch.stack([torch.arange(n - 1), torch.arange(1, n)], 1)
    return torch.cat([ahead, ahead.flip(1)])


def dense(n: int, stiffness: float) -> torch.Tensor:
    adjacency = torch.zeros(n, n, dtype=torch.float64)
    adjacency[tuple(chain(n).T)] = 1
    laplacian = torch.eye(n, dtype=torch.float64) - adjacency / adjacency.sum(1, keepdim=True)
    return torch.linalg.inv(torch.eye(n, dtype=torch.float64) + stiffness * laplacian)


def test_it_starts_where_it_is_told():
    start = torch.linspace(0, 1, 7)
    assert torch.equal(SmoothField(start, chain(7), 4.0, 0.1).values(), start)


def test_steps_are_adams_on_the_rough_field():
    n, stiffness, rate = 9, 6.0, 0.05
    target = torch.sin(torch.arange(n, dtype=torch.float64))
    field, smooth = SmoothField(torch.zeros(n, dtype=torch.float64), chain(n), stiffness, rate), dense(n, stiffness)
    rough, mean, square = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
    for step in range(1, 21):
        field.step(2 * (field.values() - target))
        gradient = smooth.T @ (2 * (smooth @ rough - target))
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        scale = (square / (1 - 0.999**step)).sqrt()
        rough = rough - rate * mean / (1 - 0.9**step) / (scale + 1e-8)
    torch.testing.assert_close(field.values(), smooth @ rough, atol=1e-9, rtol=0)


def test_one_vertex_takes_its_neighbours_along_and_less_the_further_they_are():
    field = SmoothField(torch.zeros(21), chain(21), 9.0, 0.0)
    field._rough.data[10] = 1.0  # what a gradient there would do
    values = field.values()
    assert float(values[10]) == float(values.max())
    assert bool((values[10:-1] > values[11:]).all()) and bool((values[1:11] > values[:10]).all())
    torch.testing.assert_close(values.double(), dense(21, 9.0)[:, 10], atol=1e-6, rtol=0)


def test_part_of_the_rate_moves_part_as_far():
    whole, part = (SmoothField(torch.zeros(5), chain(5), 1.0, 0.1) for _ in range(2))
    whole.step(torch.ones(5))
    part.step(torch.ones(5), 0.25)
    torch.testing.assert_close(part.values(), 0.25 * whole.values(), atol=1e-7, rtol=0)


def test_a_vertex_without_edges_stands_alone():
    field = SmoothField(torch.zeros(3), torch.tensor([[0, 1], [1, 0]]), 5.0, 0.1)
    field.step(torch.tensor([0.0, 0.0, 1.0]))
    assert field.values()[:2].abs().max() == 0 and float(field.values()[2]) == pytest.approx(-0.1, rel=1e-5)
