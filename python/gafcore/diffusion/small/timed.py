"""Training of the small prior on an accelerator for a given time: large batches put together there, one CUDA graph a step.

The learning rate follows the clock, so that it has cooled down when the time is over, however fast the machine is; people who are made
meanwhile join. Neither is reproducible: equal bits are what `training.train` is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from gafcore.captures.synthetic.noise import generator
from gafcore.diffusion.small.network import SmallPriorNetwork
from gafcore.diffusion.small.resident import Draw, ResidentPeople, draw_batches
from gafcore.diffusion.small.training import TrainConfig, cooled, diffusion_loss, regression_loss
from gafcore.errors import InputError
from gafcore.files import atomic_path

_AT_ONCE = 25  # steps between looks at the clock, the folder and the loss
_CHUNKS_AT_ONCE = 4  # files read between two looks: a tenth of a second
_SAVE_EVERY_S = 20.0
_WARM_UP_STEPS = 4  # before the graph is captured: cuDNN chooses its kernels, AdamW makes its moments


@dataclass(frozen=True)
class Progress:
    """What a report says."""

    step: int
    seconds: float
    loss: float  # mean since the last report
    rate: float
    people: int


def train_timed(
    people: ResidentPeople,
    config: TrainConfig,
    weights: Path,
    seconds: float,
    *,
    start: Path | None = None,
    graph: bool = True,
    report: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Train for `seconds`, or `config.steps` if these are over sooner, and write the averaged weights.

    Args:
        people: On the device that trains.
        config: Sizes, rates, seed; the schedule is the clock's.
        weights: Where the averaged weights go, every so often and at the end.
        seconds: Of the clock, preparations included.
        start: Weights to begin with.
        graph: On a CUDA device: capture a step once and replay it.
        report: Called every few steps.

    Returns:
        Steps that were taken.

    Raises:
        InputError: There is nobody to learn from.
        RuntimeError: The loss is not finite; the last weights written are from before.
    """
    begin = time.monotonic()
    if people.refresh() == 0:
        raise InputError(f"{people.folder}: holds no people; make them with scripts/train_small_prior.py people")
    torch.manual_seed(config.seed)
    stepper = _Stepper(people, config, start, graph)
    rng = generator(config.seed, "timed")
    step, saved, elapsed = 0, begin, 0.0
    while step < config.steps and elapsed < seconds:
        draws = draw_batches(rng, people.count, _AT_ONCE, config.batch, config.network.views).to(people.device)
        n = min(_AT_ONCE, config.steps - step)
        share = max(elapsed / seconds, step / config.steps)
        for k in range(n):
            warm = min(1.0, (step + k + 1) / max(config.warmup, 1))
            stepper.take(draws.at(k), config.learning_rate * warm * cooled(share), step + k)
        step += n
        loss = stepper.mean_loss(n)  # waits for the device
        if not loss < float("inf"):
            raise RuntimeError(f"step {step}: the loss is {loss}; try a smaller learning rate")
        now = time.monotonic()
        elapsed = now - begin
        report(Progress(step, elapsed, loss, config.learning_rate * cooled(share), people.count))
        people.refresh(_CHUNKS_AT_ONCE)
        if now - saved > _SAVE_EVERY_S:
            stepper.save(weights, step, people.count)
            saved = now
    stepper.save(weights, step, people.count)
    return step


class _Stepper:
    """Network, optimizer and average, and one training step: eager at first, a replayed graph where that is possible."""

    def __init__(self, people: ResidentPeople, config: TrainConfig, start: Path | None, graph: bool) -> None:
        self.people, self.config = people, config
        device = people.device
        network = SmallPriorNetwork(config.network)
        if start is not None:
            network.load_state_dict(load_file(start))
        self.network = network.to(device)
        self.on_cuda = device.type == "cuda"
        rate = torch.tensor(config.learning_rate, device=device) if self.on_cuda else config.learning_rate
        parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(parameters, rate, weight_decay=config.weight_decay, fused=True, capturable=self.on_cuda)
        self.average = [p.detach().clone() for p in parameters]
        self.loss_sum = torch.zeros((), device=device)
        self.draw: Draw | None = None
        self.wants_graph = graph and self.on_cuda
        self.graph: torch.cuda.CUDAGraph | None = None
        self.side = torch.cuda.Stream() if self.wants_graph else None
        if self.on_cuda:
            torch.backends.cudnn.benchmark = True

    def take(self, draw: list[Tensor], rate: float, step: int) -> None:
        """One step on a batch, without waiting for the device."""
        if self.draw is None:
            self.draw = Draw(*(x.clone() for x in draw))
        else:
            for here, new in zip(self.draw.tensors(), draw, strict=True):
                here.copy_(new)
        for group in self.optimizer.param_groups:
            if self.on_cuda:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self.graph is not None:
            self.graph.replay()
        else:
            self._eager(step)
        keep = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.network.parameters()], 1 - keep)

    def _eager(self, step: int) -> None:
        if self.side is not None and step < _WARM_UP_STEPS:
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):  # gradients that began on the main stream would not be captured
                self.optimizer.zero_grad(set_to_none=True)
                self._step()
            torch.cuda.current_stream().wait_stream(self.side)
            return
        if self.wants_graph:
            self.wants_graph = False
            self.graph = self._captured()
            if self.graph is not None:
                self.graph.replay()
                return
        self.optimizer.zero_grad(set_to_none=True)
        self._step()

    def _step(self) -> None:
        config, draw = self.config, self.draw
        assert draw is not None
        batch = self.people.batch(draw, config.network.condition)
        if config.task == "regression":
            loss = regression_loss(self.network, batch)
        else:
            device = batch.targets.device
            chance, drop = torch.rand(config.batch, device=device), torch.rand(config.batch, device=device)
            loss = diffusion_loss(self.network, batch, chance, torch.randn_like(batch.targets), drop >= config.drop)
        loss.backward()
        clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        self.loss_sum += loss.detach()

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """The step as a graph; None, and a line on the screen, where the device will not have it."""
        torch.cuda.synchronize()
        try:
            self.optimizer.zero_grad(set_to_none=True)  # so that the graph's own memory holds the gradients
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            torch.cuda.synchronize()
            print(f"no CUDA graph, steps stay eager: {(str(error).splitlines() or [type(error).__name__])[0]}", flush=True)
            return None
        return graph

    def mean_loss(self, n: int) -> float:
        """Of the last n steps."""
        loss = float(self.loss_sum) / n
        self.loss_sum.zero_()
        return loss

    def save(self, path: Path, step: int, n_people: int) -> None:
        names = [name for name, _ in self.network.named_parameters()]
        tensors = {name: x.cpu().contiguous() for name, x in zip(names, self.average, strict=True)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"step": str(step), "people": str(n_people)})
