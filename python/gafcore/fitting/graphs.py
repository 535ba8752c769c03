"""Iterations as CUDA graphs: between two density rounds an iteration is the same kernels on the same memory, and launching some hundreds
of them one by one costs more than running them.

An iteration is captured once for each kind of inputs, after a few ordinary ones that let libraries set themselves up and make the room
for pairs known. To repeat it, the frame's numbers and picture are copied to where the captured kernels read them. Density rounds and a
growing degree of colour change the memory: then everything is captured anew. A prior's views are inputs like the frame, at iterations
where they are known beforehand (`RecallingPrior`); where it must look at the avatar or the picture first, and where capturing fails,
ordinary iterations go on.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gafcore.fitting.inputs import Inputs
from gafcore.fitting.prior import RecallingPrior
from gafcore.fitting.readings import StepResult
from gafcore.fitting.schedule import generator, sh_degree_at
from gafcore.fitting.state import FitState, set_rates
from gafcore.fitting.step import Scene, StageTimes, compare, figures, move, with_views
from gafcore.fitting.view_inputs import view_inputs
from gafcore.ops import pair_room
from gafcore.render import record

# Makes a function repeatable without running it: where its result will be, and how to run it.
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]

WARM_UP = 2  # ordinary iterations of a kind before it is captured
KINDS = 4  # graphs at a time: each holds the memory of an iteration


def capture_graph(fn: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Capture `fn` on the current stream, which must not be the default one. Nothing is computed yet.

    `torch.cuda.graph` would also give all cached memory back to the driver: too slow for what happens after every density round.
    """
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    out = record(graph, fn)
    return out, graph.replay


@dataclass
class _Graph:
    """One captured iteration."""

    inputs: Inputs  # where it reads
    values: Tensor  # where it writes its figures
    replay: Callable[[], None]
    rooms: list[pair_room.PairRoom]  # of the frame, and of a prior's views
    capacities: list[int]  # room for pairs when it was captured
    most: Tensor  # pairs in each room of any iteration since, on the device; replays read and write it, so it must live as long as they do
    most_pairs: Tensor  # the same on the host, as last heard of

    def outgrown(self) -> bool:
        """Whether pictures came near the room there is: those with more pairs are drawn right, but slowly."""
        return any(self._outgrown(*row) for row in zip(self.rooms, self.capacities, self.most_pairs.tolist(), strict=True))

    @staticmethod
    def _outgrown(room: pair_room.PairRoom, capacity: int, most: int) -> bool:
        if room.short or most <= pair_room.TIGHT * capacity:  # short: there is no memory for more
            return False
        room.fit(most)
        return room.capacity > capacity


class StepGraphs:
    """Repeats iterations of one fit.

    Args:
        scene: Of the fit.
        capture: How to make an iteration repeatable; for tests.
    """

    def __init__(self, scene: Scene, capture: Capture = capture_graph) -> None:
        self._scene, self._capture = scene, capture
        prior = scene.terms.prior
        self._recalling = prior if isinstance(prior, RecallingPrior) else None
        self._off = prior is not self._recalling  # it decides on the host, every iteration anew
        self._made_for: tuple[Tensor, int] | None = None
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._seen: Counter[tuple[object, ...]] = Counter()

    def take_step(self, state: FitState, inputs: Inputs, times: StageTimes) -> StepResult | None:
        """Move `state` as `step.take_step` does, or return None and do nothing: then an ordinary iteration must be taken."""
        if self._off:
            return None
        degree = sh_degree_at(self._scene.config, state.iteration + 1)
        if self._made_for is None or self._made_for[0] is not state.binding or self._made_for[1] != degree:
            self._forget()  # at once: an iteration that makes new views needs the most memory, and may be the next
            self._seen, self._made_for = Counter(), (state.binding, degree)
        if not self._known_before(state.iteration + 1):
            return None
        inputs = self._with_views(inputs, state.iteration + 1)
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

    def _known_before(self, iteration: int) -> bool:
        return self._recalling is None or self._recalling.recalls(iteration, self._scene.config.iterations)

    def _with_views(self, inputs: Inputs, iteration: int) -> Inputs:
        """With what the prior recalls at an iteration; an ordinary one draws the same from a generator of its own."""
        if self._recalling is None:
            return inputs
        config = self._scene.config
        views = self._recalling.recall(iteration, config.iterations, generator(config, "prior", iteration))
        return replace(inputs, views=view_inputs(views, inputs.numbers.device))

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
        own, on_gpu, rooms = inputs.clone(), inputs.numbers.is_cuda, _rooms(state, inputs)
        most = torch.zeros(len(rooms), dtype=torch.int64, device=inputs.numbers.device)
        most_on_host, capacities = torch.zeros(len(rooms), dtype=torch.int64, pin_memory=on_gpu), [room.capacity for room in rooms]

        def iteration() -> Tensor:
            untimed = StageTimes()
            outcome = with_views(state, self._scene, own, compare(state, self._scene, own, degree, untimed))
            move(state, outcome, own, untimed)
            most.copy_(torch.maximum(most, torch.stack(outcome.n_pairs)))
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
        graph = self._graphs[kind] = _Graph(own, values, replay, rooms, capacities, most, most_on_host)
        return graph


def _rooms(state: FitState, inputs: Inputs) -> list[pair_room.PairRoom]:
    """For the pairs of what an iteration draws: the frame, and a prior's views."""
    means, views = state.tensors["means"], inputs.views
    sizes = [(1, inputs.width, inputs.height)] + ([] if views is None else [(len(views.viewmats), views.width, views.height)])
    return [pair_room.room_of(means, n_cameras, means.shape[0], width, height) for n_cameras, width, height in sizes]
