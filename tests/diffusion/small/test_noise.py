"""The schedule, and sampling with an oracle that knows the picture."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.diffusion.small.noise import ddim, loss_weight, mix, signal


def test_the_mixture_keeps_the_variance_and_ends_in_pure_noise():
    level = torch.tensor([0.0, 0.25, 0.5, 1.0])
    expected = [1.0, math.cos(math.pi / 8), math.sqrt(0.5), 0.0]
    assert signal(level).tolist() == pytest.approx(expected, abs=1e-6)
    clean, noise = torch.ones(4, 2), torch.zeros(4, 2)
    torch.testing.assert_close(mix(clean, noise, level)[:, 0], signal(level))
    assert torch.equal(mix(clean, torch.full((4, 2), 3.0), level)[3], torch.full((2,), 3.0))


@pytest.mark.parametrize(("start", "steps"), [(1.0, 1), (1.0, 10), (0.5, 5), (0.25, 2), (0.02, 1)])
def test_an_oracle_is_followed_exactly(start, steps):
    clean = torch.rand(1, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    levels = []

    def oracle(_, level):
        levels.append(level)
        return clean

    noisy = mix(clean, torch.randn(1, 3), torch.tensor([start]))
    assert torch.equal(ddim(noisy, start, steps, oracle), clean)
    assert levels == pytest.approx([start * (1 - k / steps) for k in range(steps)])


def test_a_step_goes_along_the_noise_that_is_there():
    """What the oracle is handed after a step is the same picture with the same noise at the lower level."""
    clean, noise, seen = torch.tensor([[0.3]]), torch.tensor([[1.7]]), []
    ddim(mix(clean, noise, torch.tensor([0.8])), 0.8, 4, lambda x, level: (seen.append((x, level)), clean)[1])
    for x, level in seen:
        torch.testing.assert_close(x, mix(clean, noise, torch.tensor([level])))


def test_the_loss_weight_is_one_over_variance_up_to_a_limit():
    assert loss_weight(torch.tensor([1.0, 0.5, 0.0])).tolist() == pytest.approx([1.0, 2.0, 5.0])
