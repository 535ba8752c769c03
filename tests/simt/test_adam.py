"""The multi-tensor Adam of csrc/cuda in the emulator against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch

from tests.simt.emulator import KIND, Device, load


@pytest.mark.parametrize("sizes", [[7], [1500, 3, 0, 260], [5] * 30], ids=["one", "unlike", "more-than-a-launch-holds"])
def test_matches_torch(sizes) -> None:
    g = torch.Generator().manual_seed(0)
    sizes = [min(n, 300) for n in sizes] if KIND == "tsan" else sizes
    values = [torch.randn(n, generator=g) for n in sizes]
    rates = [10.0 ** -(1 + i % 4) for i in range(len(sizes))]
    ours = [(x.clone(), torch.zeros_like(x), torch.zeros_like(x), torch.zeros(1), torch.tensor([r])) for x, r in zip(values, rates, strict=True)]
    theirs = [x.clone().requires_grad_() for x in values]
    oracle = torch.optim.Adam([{"params": [x], "lr": r} for x, r in zip(theirs, rates, strict=True)], eps=1e-15)
    module = load()
    module.configure("random", 1, 60.0)
    for _ in range(4):
        gradients = [torch.randn(n, generator=g) * 10.0 ** torch.randint(-8, 2, (n,), generator=g) for n in sizes]
        for x, v in zip(theirs, gradients, strict=True):
            x.grad = v.clone()
        oracle.step()
        device = Device(module)
        rows = []
        for (value, mean, square, step, rate), v in zip(ours, gradients, strict=True):
            tensors = (value, v, mean, square, step, rate)
            rows.append((len(value), *(device.pointer(x) if x.numel() else 0 for x in tensors)))
        module.cuda_float32.adam(0, 0, device.allocate, rows, 0.9, 0.999, 1e-15)
        device.read_back()
        device.release()
    for (value, _, _, step, _), want in zip(ours, theirs, strict=True):
        assert step.item() == 4
        torch.testing.assert_close(value, want.detach(), rtol=1e-5, atol=1e-6)
