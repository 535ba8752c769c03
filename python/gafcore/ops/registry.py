"""Registration of native ops with PyTorch, and the short way around it.

One schema an op, `lib.define` + `lib.impl` + `register_fake`; gradients live in a ctx-style autograd.Function outside the op. Measured per
call, this is three times cheaper than `torch.library.custom_op` with `register_autograd` (docs/kernels.md). Ordinary tensors in eager mode
need no dispatcher at all: `ordinary` finds out, once a call, and ops and Functions are called without what torch puts in front of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_library = torch.library.Library("gafcore", "DEF")
F = TypeVar("F", bound=Callable[..., Any])


def _ordinary_keys() -> frozenset[int]:
    """The dispatch keys of dense tensors on the CPU or on CUDA, as numbers, made in or outside inference mode."""
    key, sets = torch._C.DispatchKey, []
    for backend, autograd, autocast in (
        (key.CPU, key.AutogradCPU, key.AutocastCPU),
        (key.CUDA, key.AutogradCUDA, key.AutocastCUDA),
    ):
        inference = torch._C.DispatchKeySet(backend).add(autocast)
        sets += [inference, inference.add(autograd).add(key.ADInplaceOrView)]
    return frozenset(s.raw_repr() for s in sets)


_ORDINARY = _ordinary_keys()
_keys, _foreign = torch._C._dispatch_keys, torch._C._has_torch_function


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether ops on these tensors may run without the dispatcher: they are ordinary ones, and nothing traces, transforms or watches ops.

    Not ordinary are subclasses, wrappers of torch.func, tensors on meta, and views that stand for their negative.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    if torch._C._get_tracing_state() is not None or torch.autograd._profiler_enabled() or _foreign(tensors):
        return False
    for x in tensors:  # noqa: SIM110 - a generator takes twice as long
        if x is not None and _keys(x).raw_repr() not in _ORDINARY:
            return False
    return True


def _complete(fn: Callable[..., Any]) -> Callable[..., Any]:
    def complete(*args: Any) -> Any:
        out = fn(*args)
        return tuple(args[0].new_empty(0) if x is None else x for x in out) if isinstance(out, tuple) else out

    return complete


def new_like(x: Tensor) -> Tensor:
    """Uninitialised and contiguous, whatever `x` is; for the shapes of `fake`, too."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def new_empty(*shape: int, like: Tensor) -> Tensor:
    """For the shapes of `fake`, where an implementation calls `native.empty`."""
    return like.new_empty(*shape)


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    """As kernels read them; None stays None."""
    return [None if x is None else x.contiguous() for x in tensors]


class Op:
    """A registered op; calling it dispatches on the device of its tensors."""

    def __init__(self, schema: str) -> None:
        name = _library.define(schema)
        self.name = name.split("::")[-1]
        self._call = getattr(torch.ops.gafcore, self.name).default
        self._native: Callable[..., Any] = self._call

    def native(self, fn: F) -> F:
        """Decorates the implementation, which allocates the outputs and calls `launch`; `launch` finds the device's kernel.

        An output that was not asked for is None. The dispatcher knows no such outputs: there it is a tensor without numbers.
        """
        self._native = fn
        for device in ("CPU", "CUDA"):
            _library.impl(self.name, _complete(fn), device)
        return fn

    def fake(self, fn: F) -> F:
        """Decorates the function that gives the outputs' shapes, for torch.compile."""
        torch.library.register_fake(f"gafcore::{self.name}", _complete(fn), lib=_library)
        return fn

    def __call__(self, *args: Any, eager: bool = False) -> Any:
        # The dispatcher warns where a gradient is asked for that no Function of ours passes on.
        if not eager or (torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)):
            return self._call(*args)
        return self._native(*args)


def define(schema: str) -> Op:
    """Define an op, for example `define("distance_fade(Tensor points, float sigma) -> Tensor")`."""
    return Op(schema)


def apply(function: type[torch.autograd.Function], *args: Any, eager: bool) -> Any:
    """`function.apply`. Where it is `eager`, without the search for wrappers that torch.func left behind, half of its cost."""
    return (super(torch.autograd.Function, function).apply if eager else function.apply)(*args)  # type: ignore[misc]


def once(backward: F) -> F:
    """`once_differentiable`, whose guard against a second derivative costs nothing where none is asked for."""
    guarded = once_differentiable(backward)

    @functools.wraps(backward)
    def chosen(ctx: Any, *gradients: Any) -> Any:
        return (guarded if torch.is_grad_enabled() else backward)(ctx, *gradients)

    return chosen  # type: ignore[return-value]
