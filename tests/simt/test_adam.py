"""The multi-tensor Adam of csrc/cuda in the emulator against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch

from gafcore.fitting import optim
from tests.cases.adam import optimised
from tests.simt.emulator import KIND, ORDERS, Device, emulated, load


def adam_in_the_emulator(rows, beta1, beta2, eps) -> None:
    module = load()
    device = Device(module)
    addresses = [(row[0].numel(), *(device.pointer(x) if x.numel() else 0 for x in row)) for row in rows]
    module.cuda_float32.adam(0, 0, device.allocate, addresses, beta1, beta2, eps)
    device.read_back()
    device.release()


@pytest.mark.parametrize("sizes", [[7], [1500, 3, 0, 260], [5] * 30], ids=["one", "unlike", "more-than-a-launch-holds"])
def test_matches_torch_in_every_order(sizes) -> None:
    results = [steps_match_torch(sizes, order) for order in (("random",) if KIND == "tsan" else ORDERS)]
    assert all(torch.equal(x, y) for got in results[1:] for x, y in zip(got, results[0], strict=True)), (
        "results depend on the order of threads"
    )


def steps_match_torch(sizes, order: str) -> list[torch.Tensor]:
    """All that Adam has written after some steps, compared with torch's values."""
    g = torch.Generator().manual_seed(0)
    steps = 1 if KIND == "tsan" else 2
    sizes = [min(n, 300) for n in sizes] if KIND == "tsan" else sizes
    values = [torch.randn(n, generator=g) for n in sizes]
    rates = [10.0 ** -(1 + i % 4) for i in range(len(sizes))]
    ours = [
        (x.clone(), torch.zeros_like(x), torch.zeros_like(x), torch.zeros(1), torch.tensor([r])) for x, r in zip(values, rates, strict=True)
    ]
    theirs = [x.clone().requires_grad_() for x in values]
    oracle = torch.optim.Adam([{"params": [x], "lr": r} for x, r in zip(theirs, rates, strict=True)], eps=1e-15)
    load().configure(order, 1, 60.0)
    for _ in range(steps):
        gradients = [torch.randn(n, generator=g) * 10.0 ** torch.randint(-8, 2, (n,), generator=g) for n in sizes]
        for x, v in zip(theirs, gradients, strict=True):
            x.grad = v.clone()
        oracle.step()
        adam_in_the_emulator([(value, v, *rest) for (value, *rest), v in zip(ours, gradients, strict=True)], 0.9, 0.999, 1e-15)
    for (value, _, _, step, _), want in zip(ours, theirs, strict=True):
        assert step.item() == steps
        torch.testing.assert_close(value, want.detach(), rtol=1e-5, atol=1e-6)
    return [x for row in ours for x in row]


def test_the_fits_optimiser_steps_alike_on_both_backends(monkeypatch) -> None:
    monkeypatch.setattr(optim, "adam_cuda", adam_in_the_emulator)
    want = optimised()
    with emulated():
        got = optimised()
    assert got.keys() == want.keys()
    for name, x in got.items():
        torch.testing.assert_close(x, want[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
