from __future__ import annotations

import torch

from gafcore.fitting.optim import NamedAdam


def start() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"a": torch.randn(5, 3, generator=g), "b": torch.randn(2, generator=g)}


def steps(adam: NamedAdam, n: int, seed: int = 0) -> None:
    g = torch.Generator().manual_seed(seed)
    for _ in range(n):
        for x in adam.tensors.values():
            x.grad = torch.randn(x.shape, generator=g)
        adam.step()


def test_steps_are_adams():
    """Against the update written out in double precision (Kingma and Ba 2015, algorithm 1)."""
    values = start()
    adam = NamedAdam({k: x.clone() for k, x in values.items()}, {"a": 0.1, "b": 0.02}, eps=1e-15)
    steps(adam, 3)
    g = torch.Generator().manual_seed(0)
    want = {k: x.double() for k, x in values.items()}
    m = {k: torch.zeros_like(x) for k, x in want.items()}
    v = {k: torch.zeros_like(x) for k, x in want.items()}
    for t in (1, 2, 3):
        for k, rate in (("a", 0.1), ("b", 0.02)):
            grad = torch.randn(want[k].shape, generator=g).double()
            m[k] = 0.9 * m[k] + 0.1 * grad
            v[k] = 0.999 * v[k] + 0.001 * grad**2
            want[k] = want[k] - rate * (m[k] / (1 - 0.9**t)) / ((v[k] / (1 - 0.999**t)).sqrt() + 1e-15)
    for k, x in adam.tensors.items():
        torch.testing.assert_close(x.detach().double(), want[k], rtol=1e-5, atol=1e-6)


def test_rows_keep_their_moments_and_new_ones_start_from_zero():
    adam = NamedAdam(start(), {"a": 0.1, "b": 0.1}, eps=1e-15)
    steps(adam, 2)
    before = adam.state()["a.exp_avg"].clone()
    source, fresh = torch.tensor([4, 0, 0]), torch.tensor([False, False, True])
    adam.replace({"a": adam.tensors["a"].detach()[source]}, source, fresh)
    after = adam.state()["a.exp_avg"]
    assert torch.equal(after[:2], before[[4, 0]]) and not after[2].any()
    steps(adam, 1)
    assert adam.tensors["a"].shape == (3, 3) and adam.tensors["a"].grad is None


def test_state_survives_a_copy():
    one = NamedAdam(start(), {"a": 0.1, "b": 0.1}, eps=1e-15)
    steps(one, 3)
    two = NamedAdam({k: x.detach().clone() for k, x in one.tensors.items()}, {"a": 0.1, "b": 0.1}, eps=1e-15)
    two.load_state({k: x.clone() for k, x in one.state().items()})
    for adam in (one, two):
        steps(adam, 2, seed=9)
    for a, b in zip(one.tensors.values(), two.tensors.values(), strict=True):
        assert torch.equal(a, b)


def test_rates_and_tensors_without_a_gradient():
    adam = NamedAdam(start(), {"a": 0.1, "b": 0.1}, eps=1e-15)
    a, b = (x.detach().clone() for x in adam.tensors.values())
    adam.set_rate("a", 0.5)
    adam.tensors["a"].grad = torch.ones(5, 3)
    adam.step()
    torch.testing.assert_close(adam.tensors["a"].detach(), a - 0.5)
    assert torch.equal(adam.tensors["b"].detach(), b)
