"""A run of the fit's optimiser in which rows come and go, one tensor has no gradient for a while, and the step size changes."""

from __future__ import annotations

import torch

from gafcore.fitting.optim import NamedAdam


def optimised(device: torch.device | str = "cpu", n: int = 5) -> dict[str, torch.Tensor]:
    """Values and moments after six steps from `n` rows, on the CPU, by the optimiser on `device`."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(device)

    adam = NamedAdam({"means": normal(n, 3), "color": normal(4)}, {"means": 0.1, "color": 0.01}, 1e-15)
    for i in range(6):
        for name, x in adam.tensors.items():
            if name != "color" or i > 1:
                x.grad = normal(*x.shape)
        adam.step()
        assert all(x.grad is None for x in adam.tensors.values())
        if i == 3:
            source = torch.tensor([0, *range(2, n), n - 1], device=device)
            fresh = torch.arange(n, device=device) == n - 1
            adam.replace({"means": adam.tensors["means"][source]}, source, fresh)
            adam.set_rate("means", 0.03)
    return {name: x.detach().cpu() for name, x in (adam.tensors | adam.state()).items()}
