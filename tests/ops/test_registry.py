"""Which calls go around the dispatcher, that they give what it gives, and which must not."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gafcore import interpolate, photometric_loss
from gafcore.ops import registry
from gafcore.ops.interpolate import _backward_op, _forward_op


class Subclass(torch.Tensor):
    pass


class Watched(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def inputs():
    ids = torch.tensor([[[0, -1], [1, 0]]], dtype=torch.int32)
    return torch.rand(4, 2), torch.tensor([[0, 1, 2], [1, 2, 3]]), ids, torch.rand(1, 2, 2, 3)


def test_ordinary_tensors_in_eager_mode():
    x = torch.zeros(2)
    assert registry.ordinary(x, None, torch.nn.Parameter(x), torch.zeros(1, dtype=torch.int64), x.clone().requires_grad_())
    with torch.inference_mode():
        assert registry.ordinary(torch.zeros(2))


def test_tensors_that_are_not_ordinary():
    negative = torch.zeros(3, dtype=torch.complex64).conj().imag  # its memory holds the numbers with the other sign
    assert negative.is_neg()
    for x in (negative, torch.zeros(2).as_subclass(Subclass), torch.zeros(2, device="meta"), torch._efficientzerotensor(2)):
        assert not registry.ordinary(torch.zeros(2), x)


@pytest.mark.filterwarnings("ignore:.*jit.trace.*deprecated")
def test_where_something_looks_on():
    x = torch.zeros(2)
    with Watched():
        assert not registry.ordinary(x)
    with torch.profiler.profile():
        assert not registry.ordinary(x)
    with torch.device("cpu"):  # a mode that sees every function
        assert not registry.ordinary(x)
    seen = []
    torch.func.vmap(lambda y: (seen.append(registry.ordinary(y)), y)[1])(x)
    torch.jit.trace(lambda y: (seen.append(registry.ordinary(y)), y + 1)[1], x, check_trace=False)
    assert seen and not any(seen)


def test_both_ways_give_the_same():
    attributes, faces, ids, barycentrics = inputs()
    image = _forward_op(attributes, faces, ids, barycentrics)
    assert torch.equal(image, _forward_op(attributes, faces, ids, barycentrics, eager=True))
    arguments = (attributes, faces, ids, barycentrics, torch.ones_like(image), True, False)
    want, nothing = _backward_op(*arguments)
    got, none = _backward_op(*arguments, eager=True)
    assert torch.equal(want, got) and nothing.shape == (0,) and none is None


def test_modes_see_the_ops_of_a_call():
    attributes, *rest = inputs()
    attributes.requires_grad_()
    with Watched() as watched:
        interpolate(attributes, *rest).sum().backward()
    assert {"gafcore::interpolate", "gafcore::interpolate_backward"} <= set(watched.names)
    image = interpolate(attributes, *rest).sum()
    with Watched() as watched:  # begun without one
        image.backward()
    assert "gafcore::interpolate_backward" in watched.names


def test_a_view_that_stands_for_its_negative_counts_as_what_it_stands_for():
    z = torch.complex(torch.rand(12, 12, 3), torch.rand(12, 12, 3)).conj()
    target = torch.rand(12, 12, 3)
    assert torch.equal(photometric_loss(z.imag, target)[0], photometric_loss(z.imag.resolve_neg().clone(), target)[0])


def test_a_second_derivative_is_refused():
    image = torch.rand(12, 12, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(photometric_loss(image, torch.rand(12, 12, 3))[0], image, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad|once_differentiable"):
        torch.autograd.grad(gradient.sum(), image)
    l1, _ = photometric_loss(image, torch.rand(12, 12, 3))
    factor = torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad(l1, image, grad_outputs=factor, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_gradient_that_nothing_passes_on_is_warned_of():
    """photometric_loss has no gradient for its target; through the dispatcher torch says so at backward."""
    image, target = torch.rand(12, 12, 3), torch.rand(12, 12, 3, requires_grad=True)
    l1, _ = photometric_loss(image, target)
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        l1.backward()
    assert target.grad is None
