"""Compares an op in the emulator with the same op on the CPU, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.simt.emulator import ORDERS, emulated

Outputs = Sequence[Tensor]


def with_gradients(
    call: Callable[..., Outputs], inputs: Sequence[Tensor], wrt: Sequence[int], upstream_seed: int = 0, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Outputs, then the gradients of a random weighted sum of the differentiable ones by the inputs numbered `wrt`.

    They are made on `device` and copied to the CPU.
    """
    inputs = [x.detach().to(device, copy=True).requires_grad_(i in wrt) for i, x in enumerate(inputs)]
    outputs = call(*inputs)
    generator = torch.Generator().manual_seed(upstream_seed)
    moving = [y for y in outputs if y.requires_grad]
    loss = sum((y * torch.randn(y.shape, generator=generator).to(device)).sum() for y in moving)
    grads = torch.autograd.grad(loss, [inputs[i] for i in wrt]) if wrt and moving else ()
    return [y.detach().cpu() for y in (*outputs, *grads)]


def assert_close(got: list[Tensor], want: list[Tensor], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Equal within tolerance, `atol` relative to each tensor's largest value."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        scale = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol * scale, msg=lambda m, i=i: f"output {i}: {m}")


def assert_parity(
    call: Callable[..., Outputs],
    inputs: Sequence[Tensor],
    wrt: Sequence[int] = (),
    *,
    orders: Sequence[str] = ORDERS,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    compare: Callable[[list[Tensor], list[Tensor]], None] | None = None,
) -> None:
    """The emulator's results equal the CPU's within tolerance (relative to each tensor's largest value), the same bits in every order.

    `compare(got, want)` replaces the comparison with the CPU where single values may flip.
    """
    want = with_gradients(call, inputs, wrt)
    results = []
    for seed, order in enumerate(orders):
        with emulated(order, seed) as module:
            before = module.launches()
            results.append(with_gradients(call, inputs, wrt))
            assert module.launches() > before or not any(y.numel() for y in want), "nothing was launched"
    for got in results[1:]:
        for a, b in zip(results[0], got, strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), "results depend on the order of threads"
    if compare is not None:
        compare(results[0], want)
        return
    assert_close(results[0], want, rtol, atol)
