from __future__ import annotations

import math

import torch

from gafcore.fitting.config import LossWeights
from gafcore.fitting.losses import image_loss, position_penalty, scale_penalty
from gafcore.ops import photometric_loss


def test_image_loss_is_the_weighted_sum():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 20, 24, 3, generator=g) for _ in range(2))
    l1, ssim = photometric_loss(x, y)
    want = 0.8 * (x - y).abs().mean() + 0.2 * (1 - ssim)
    torch.testing.assert_close(image_loss(x, y, LossWeights()), want)
    torch.testing.assert_close(l1, (x - y).abs().mean())
    distance = torch.tensor([0.3, 0.5])
    torch.testing.assert_close(image_loss(x, y, LossWeights(), lambda *_: distance), want + 0.1 * 0.4)
    assert float(image_loss(x, x, LossWeights())) < 1e-6


def test_a_mask_weights_pixels():
    """Two halves: the masked loss of the whole is that of L1 on the half that counts, and SSIM's part agrees with the op."""
    g = torch.Generator().manual_seed(1)
    x, y = (torch.rand(1, 20, 24, 3, generator=g) for _ in range(2))
    mask = torch.zeros(1, 20, 24)
    mask[:, :, :12] = 0.5
    only_l1 = LossWeights(ssim=0.0)
    torch.testing.assert_close(image_loss(x, y, only_l1, mask=mask), 0.8 * (x - y)[:, :, :12].abs().mean())
    _, ssim = photometric_loss(x, y, mask)
    torch.testing.assert_close(image_loss(x, y, LossWeights(l1=0.0), mask=mask), 0.2 * (1 - ssim))


def test_hinges_are_zero_below_the_limit_and_count_the_visible_only():
    means = torch.tensor([[0.6, 0.8, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 100.0]], requires_grad=True)
    visible = torch.tensor([True, True, False])
    penalty = position_penalty(means, visible, 1.0)
    torch.testing.assert_close(penalty, torch.tensor((0 + 4.0) / 2))
    penalty.backward()
    torch.testing.assert_close(means.grad[1:], torch.tensor([[0.3, 0.4, 0], [0, 0, 0]]))

    log_scales = torch.tensor([[0.5, 0.5, 0.5], [1.6, 0.6, 2.6], [9.0, 9, 9]]).log().requires_grad_()
    torch.testing.assert_close(scale_penalty(log_scales, visible, 0.6), torch.tensor(math.hypot(1, 2) / 2))


def test_hinges_have_gradients_at_the_start():
    """All means zero: the length has no derivative there, and Adam must not meet a NaN."""
    means, log_scales = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    visible = torch.ones(4, dtype=torch.bool)
    (position_penalty(means, visible, 0.0) + scale_penalty(log_scales, visible, 2.0)).backward()
    assert torch.equal(means.grad, torch.zeros(4, 3)) and torch.equal(log_scales.grad, torch.zeros(4, 3))


def test_nothing_visible():
    assert float(position_penalty(torch.ones(2, 3), torch.zeros(2, dtype=torch.bool), 0.1)) == 0
