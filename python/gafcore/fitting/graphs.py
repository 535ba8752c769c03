"""Iterations as CUDA graphs: between two density rounds an iteration is the same kernels on the same memory, and launching some hundreds
of them one by one costs more than running them.

An iteration is captured once for each kind of inputs, after a few ordinary ones that let libraries set themselves up and make the room
for pairs known. To repeat it, the frame's numbers and picture are copied to where the captured kernels read them. Density rounds and a
growing degree of colour change the memory: then everything is captured anew. Where an iteration needs the host (a prior), or capturing
fails, ordinary iterations go on.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from gafcore.fitting.inputs import Inputs
from gafcore.fitting.readings import StepResult
from gafcore.fitting.schedule import sh_degree_at
from gafcore.fitting.state import FitState, set_rates
from gafcore.fitting.step import Scene, StageTimes, compare, figures, move
from gafcore.ops import pair_room

# Makes a function repeatable without running it: where its result will be, and how to run it.
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]

WARM_UP = 2  # ordinary iterations of a kind before it is captured
KINDS = 4  # graphs at a time: each holds the memory of an iteration


def capture_graph(fn: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Capture `fn` on the current stream, which must not be the default one. Nothing is computed yet.

    `torch.cuda.graph` would also give all cached memory back to the driver: too slow for what happens after every density round.
    """
    torch.cuda.current_stream().synchronize()
    graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
    gc.disable()  # an old graph or event that is collected now would end the capture
    try:
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            out = fn()
        except BaseException:
            with suppress(RuntimeError):  # what went wrong has ended the capture, and is what the caller should hear of
                graph.capture_end()
            raise
        graph.capture_end()
    finally:
        if collecting:
            gc.enable()
    return out, graph.replay


@dataclass
class _Graph:
    """One captured iteration."""

    inputs: Inputs  # where it reads
    values: Tensor  # where it writes its figures
    replay: Callable[[], None]
    room: pair_room.PairRoom
    capacity: int  # room for pairs when it was captured
    most: Tensor  # pairs of any frame since, on the device; replays read and write it, so it must live as long as they do
    most_pairs: Tensor  # the same on the host, as last heard of

    def outgrown(self) -> bool:
        """Whether a frame came near the room there is: one with more pairs is drawn right, but slowly."""
        most = int(self.most_pairs)
        if most <= pair_room.TIGHT * self.capacity:
            return False
        self.room.fit(most)
        return self.room.capacity > self.capacity


class StepGraphs:
    """Repeats iterations of one fit.

    Args:
        scene: Of the fit.
        capture: How to make an iteration repeatable; for tests.
    """

    def __init__(self, scene: Scene, capture: Capture = capture_graph) -> None:
        self._scene, self._capture = scene, capture
        self._off = scene.terms.prior is not None  # it decides on the host, every iteration anew
        self._made_for: tuple[Tensor, int] | None = None
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._seen: Counter[tuple[object, ...]] = Counter()

    def take_step(self, state: FitState, inputs: Inputs, times: StageTimes) -> StepResult | None:
        """Move `state` as `step.take_step` does, or return None and do nothing: then an ordinary iteration must be taken."""
        if self._off:
            return None
        degree = sh_degree_at(self._scene.config, state.iteration + 1)
        if self._made_for is None or self._made_for[0] is not state.binding or self._made_for[1] != degree:
            self._forget()
            self._seen, self._made_for = Counter(), (state.binding, degree)
        graph = self._graphs.get(inputs.kind)
        if graph is not None and graph.outgrown():
            graph = None
            self._forget()
        if graph is None:
            with times.stage("capture"):
                graph = self._new(state, inputs, degree)
        if graph is None:
            return None
        with times.stage("replay"):
            set_rates(state, self._scene.config, state.iteration + 1)
            graph.inputs.copy_(inputs)
            graph.replay()
            state.iteration += 1
            return StepResult(graph.values.clone())  # the next one overwrites them

    def _forget(self) -> None:
        """Drop all graphs, once they have ended: they write to memory that would be given to others."""
        if any(graph.values.is_cuda for graph in self._graphs.values()):
            torch.cuda.current_stream().synchronize()
        self._graphs = {}

    def _new(self, state: FitState, inputs: Inputs, degree: int) -> _Graph | None:
        """An iteration for inputs of this kind, captured; None where it is too early, or cannot be."""
        kind = inputs.kind
        self._seen[kind] += 1
        if self._seen[kind] <= WARM_UP or len(self._graphs) >= KINDS:
            return None
        means, on_gpu = state.tensors["means"], inputs.numbers.is_cuda
        room = pair_room.room_of(means, 1, means.shape[0], inputs.width, inputs.height)
        own, most = inputs.clone(), torch.zeros((), dtype=torch.int64, device=inputs.numbers.device)
        most_on_host, capacity = torch.zeros((), dtype=torch.int64, pin_memory=on_gpu), room.capacity

        def iteration() -> Tensor:
            untimed = StageTimes()
            outcome = compare(state, self._scene, own, degree, untimed)
            move(state, outcome, own, untimed)
            most.copy_(torch.maximum(most, outcome.n_pairs))
            most_on_host.copy_(most, non_blocking=True)
            return figures(outcome)

        try:
            values, replay = self._capture(iteration)
        except RuntimeError as error:
            state.adam.drop_gradients()
            self._off = True
            self._forget()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"an iteration could not be captured as a CUDA graph ({reason}); they go on one by one", RuntimeWarning, stacklevel=2
            )
            return None
        graph = self._graphs[kind] = _Graph(own, values, replay, room, capacity, most, most_on_host)
        return graph
