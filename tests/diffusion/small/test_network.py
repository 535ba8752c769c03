from __future__ import annotations

import math

import pytest
import torch

from gafcore.diffusion.small.network import SmallPriorNetwork
from tests.cases.small_prior import TINY, woken


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return draw(2, 2, 3, 16, 16), torch.tensor([0.3, 0.7]), draw(2, 6, 16, 16), draw(2, 2, 3, 16, 16), draw(2, 2, 4, 16, 16)


def test_before_training_the_answer_is_the_fill_under_a_thin_grey_layer(inputs):
    """The layer's logit is -4 and its colour 0: 1.8 % of grey."""
    cover = 1 / (1 + math.exp(4))
    torch.testing.assert_close(SmallPriorNetwork(TINY)(*inputs), (1 - cover) * inputs[3])


def test_views_are_made_together_and_none_is_special(inputs):
    """Exchanging the views exchanges the answers; another second view changes the first one's answer."""
    network = woken()
    noisy, level, image, fill, conditions = inputs
    made = network(*inputs)
    swapped = network(noisy.flip(1), level, image, fill.flip(1), conditions.flip(1))
    torch.testing.assert_close(swapped, made.flip(1), atol=1e-4, rtol=1e-4)
    other = fill.clone()
    other[:, 1] += 1
    assert float((network(noisy, level, image, other, conditions)[:, 0] - made[:, 0]).abs().max()) > 1e-5


def test_everything_that_is_given_counts(inputs):
    network = woken()
    made = network(*inputs)
    for k in range(5):
        changed = list(inputs)
        changed[k] = changed[k] + 0.5
        assert float((network(*changed) - made - (0.5 if k == 3 else 0)).abs().max()) > 1e-3, k


def test_sets_of_a_batch_do_not_mix(inputs):
    network = woken()
    alone = network(*(x[:1] for x in inputs))
    torch.testing.assert_close(alone, network(*inputs)[:1], atol=1e-4, rtol=1e-4)
