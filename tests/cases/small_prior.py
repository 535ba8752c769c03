"""A small prior that computes in milliseconds."""

from __future__ import annotations

import torch

from gafcore.diffusion.small.network import NetworkConfig, SmallPriorNetwork
from gafcore.diffusion.small.prior import SmallPrior

TINY = NetworkConfig(size=16, width=8, token_width=16, head_width=8, conv_blocks=1, attention_blocks=1, views=2)


def woken(config: NetworkConfig = TINY, seed: int = 0) -> SmallPriorNetwork:
    """A network whose zero-initialised layers are random, as after training."""
    torch.manual_seed(seed)
    network = SmallPriorNetwork(config).eval().requires_grad_(False)
    for x in network.parameters():
        x.copy_(0.2 * torch.randn(x.shape))
    return network


def tiny_prior() -> SmallPrior:
    return SmallPrior(woken(seed=1), woken(seed=2))
