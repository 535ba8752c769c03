"""The denoiser's passes as CUDA graphs. At 32 x 32 latents a pass is over a thousand kernels, and launching them takes several times as
long as running them.

A graph is captured once for each kind of call (sizes, guidance, what the condition holds) and then replayed with new numbers in the same
memory, for any picture and timestep. Weights may change in place; where they have moved, passes are captured anew.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gafcore.attention import choice
from gafcore.attention.processor import References
from gafcore.diffusion.unet import MultiViewUNet, ViewCondition
from gafcore.render import capture_graph

KEPT = 4  # graphs, the one not used for longest leaving: each holds the memory of a pass
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]


@dataclass
class _Graph:
    inputs: list[Tensor]
    out: Tensor
    replay: Callable[[], None]


class GraphedUNet:
    """Calls `unet` as its own `forward` does with a dictionary of references, by replaying graphs.

    Args:
        unet: On a GPU, and without offloading hooks: moving weights while a graph runs is not possible.
        capture: How to make a repeatable call; for tests.
    """

    def __init__(self, unet: MultiViewUNet, capture: Capture = capture_graph) -> None:
        self.unet = unet
        self._capture = capture
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    def possible(self) -> bool:
        """Whether `unet` is where a graph can be captured, and stays there between calls."""
        return not hasattr(self.unet, "_hf_hook") and (self.unet.device.type == "cuda" or self._capture is not capture_graph)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timestep: Tensor, condition: ViewCondition, references: References, *, both: bool = False) -> Tensor:
        """`MultiViewUNet.forward` without gradient; `references` is filled where it is empty and needed."""
        if not references:
            references.update(self.unet.make_references(condition) or {})
        given = {f.name: x for f in fields(condition) if (x := getattr(condition, f.name)) is not None}
        names = (*given, *references)
        inputs = [noisy, timestep, *given.values(), *(x for pair in references.values() for x in pair)]
        key = (both, names, tuple((tuple(x.shape), x.dtype) for x in inputs), self._state())
        graph = self._graphs.get(key)
        if graph is None:
            while len(self._graphs) >= KEPT:
                self._graphs.popitem(last=False)
            graph = self._graphs[key] = self._captured(inputs, tuple(given), tuple(references), both)
        self._graphs.move_to_end(key)
        torch._foreach_copy_(graph.inputs, inputs)
        with self._on_its_device():
            graph.replay()
        return graph.out.clone()

    def _state(self) -> Hashable:
        """What a captured pass depends on beside its inputs: where weights are, and what chooses kernels."""
        weights = tuple(x.data_ptr() for x in (*self.unet.parameters(), *self.unet.buffers()))
        return weights, self.unet.dtype, self.unet.training, choice.override(), os.environ.get(choice.VARIABLE)

    def _on_its_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.unet.device) if self.unet.device.type == "cuda" else nullcontext()

    def _captured(self, inputs: list[Tensor], given: tuple[str, ...], layers: tuple[str, ...], both: bool) -> _Graph:
        mine = [x.detach().clone().to(self.unet.device) for x in inputs]
        noisy, timestep, *rest = mine
        condition = replace(ViewCondition(rest[0], rest[0]), **dict(zip(given, rest, strict=False)))
        pairs = iter(rest[len(given) :])
        references: References = {name: (next(pairs), next(pairs)) for name in layers}
        with self._on_its_device():
            out, replay = self._capture(lambda: self.unet(noisy, timestep, condition, references, both=both))
        return _Graph(mine, out, replay)
