"""The training loop, on accelerate: one process or many, resumable, the same numbers either way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader

from gafcore.diffusion import randomness, train_state
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.train_parts import Parts
from gafcore.diffusion.train_state import TrainState
from gafcore.errors import GafError

Watch = Callable[[int, float], None]


class DivergedError(GafError):
    """The loss is not a number any more; the last checkpoint is from before."""


@dataclass(frozen=True)
class Trained:
    """What a training ends with. `losses` has one mean a step."""

    step: int
    losses: list[float]


@dataclass(frozen=True)
class _Numbers:
    """Sample numbers of batch after batch, from a step on: what a DataLoader asks of a batch sampler."""

    config: TrainConfig
    n_samples: int
    first_step: int
    places: list[list[int]]

    def __iter__(self) -> Iterator[list[int]]:
        batch = self.config.batch
        for step in range(self.first_step, self.config.steps):
            order = randomness.epoch_order(self.config.seed, self.n_samples, step * batch, batch)
            for rows in self.places:
                yield [order[p] for p in rows]


@dataclass
class Trainer:
    """A model on a data set.

    Attributes:
        parts: Networks and loss.
        data: `__len__`, `__getitem__`: samples of the objective's kind.
        collate: Samples to a batch.
        config: Settings.
        out: Folder for checkpoints; None writes none.
        cpu: Keep off any GPU.
    """

    parts: Parts
    data: Any
    collate: Callable[[Sequence[Any]], Any]
    config: TrainConfig
    out: Path | None = None
    cpu: bool = False

    def __post_init__(self) -> None:
        c = self.config
        # accelerate remembers the first precision of a process and refuses another; an autoencoder and a prior may want two.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision=c.precision,
            cpu=self.cpu,
            log_with="tensorboard" if c.tensorboard and self.out else None,
            project_dir=None if self.out is None else str(self.out),
            dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
        )
        self.share, self.micro = c.share(self.accelerator.num_processes)
        model = self.parts.model.train()
        if c.gradient_checkpointing:
            network: Any = getattr(model, "vae", model)
            network.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(model.parameters(), lr=c.lr, weight_decay=c.weight_decay, foreach=False)
        model.to(self.accelerator.device)
        ema = EMAModel(model.parameters(), decay=c.ema_decay, use_ema_warmup=True, power=0.75) if c.ema_decay else None
        self.state = TrainState(model, optimizer, ema)
        for frozen in (self.parts.vae, self.parts.image_encoder):
            if frozen is not None:
                frozen.to(self.accelerator.device)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)

    def resume(self) -> Path:
        """Go on from the newest checkpoint of the output folder."""
        assert self.out is not None
        return train_state.resume(self.state, self.config, self.out / "checkpoints")

    def run(self, watch: Watch | None = None) -> Trained:
        """Train up to `config.steps`.

        Args:
            watch: Called after every step, in every process, with the number of steps done and the mean loss.

        Raises:
            DivergedError: The loss became infinite or NaN.
        """
        c, state = self.config, self.state
        if self.accelerator.log_with:
            self.accelerator.init_trackers("logs")
        for batches in self._steps():
            loss = self.step(batches)
            state.step += 1
            state.losses.append(loss)
            if not math.isfinite(loss):
                raise DivergedError(f"step {state.step}: the loss is {loss}; resume from the last checkpoint with a lower lr or bf16")
            if self.accelerator.log_with:
                self.accelerator.log({"loss": loss, "lr": self._lr(state.step - 1)}, step=state.step)
            if self.out is not None and (state.step % c.checkpoint_every == 0 or state.step == c.steps):
                self._checkpoint()
            if watch is not None:
                watch(state.step, loss)
        if self.accelerator.log_with:
            self.accelerator.end_training()
        return Trained(state.step, state.losses)

    def _checkpoint(self) -> None:
        if self.accelerator.is_main_process and self.out is not None:
            train_state.save(self.state, self.config, self.out / "checkpoints")
        self.accelerator.wait_for_everyone()

    def _lr(self, step: int) -> float:
        return self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup))

    def _steps(self) -> Iterator[list[tuple[Any, list[int]]]]:
        """For each remaining step this process's batches, with the samples' places in the step."""
        c, rank = self.config, self.accelerator.process_index
        first = [rank * self.share + m for m in range(0, self.share, self.micro)]
        places = [list(range(p, p + self.micro)) for p in first]
        numbers = _Numbers(c, len(self.data), self.state.step, places)
        loader = DataLoader(self.data, batch_sampler=numbers, num_workers=c.workers, collate_fn=self.collate)  # type: ignore[arg-type]
        batches = iter(loader)
        for _ in range(self.state.step, c.steps):
            yield [(next(batches), rows) for rows in places]

    def gradients(self, batches: list[tuple[Any, list[int]]]) -> float:
        """Leave the gradient of the mean loss over the whole step in the parameters; the mean loss, over all processes."""
        total = torch.zeros((), device=self.accelerator.device)
        for number, (batch, places) in enumerate(batches):
            generators = [randomness.generator(self.config.seed, 2, self.state.step, place) for place in places]
            # Gradients are exchanged once a step, with the last of its batches.
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped), self.accelerator.autocast():
                losses = self.parts.objective(self.wrapped, self.to_device(batch), generators)
                self.accelerator.backward(losses.mean() / len(batches))
            total += losses.detach().mean() / len(batches)
        return float(self.accelerator.reduce(total, "mean"))

    def step(self, batches: list[tuple[Any, list[int]]]) -> float:
        """One optimiser step."""
        loss = self.gradients(batches)
        if self.config.clip_norm:
            self.accelerator.clip_grad_norm_(self.state.model.parameters(), self.config.clip_norm)
        for group in self.state.optimizer.param_groups:
            group["lr"] = self._lr(self.state.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.step(self.state.model.parameters())
        return loss

    def to_device(self, batch: Any) -> Any:
        return replace(batch, **{name: x.to(self.accelerator.device) for name, x in batch.tensors()})

    def averaged(self) -> nn.Module:
        """A copy of the model with the averaged weights, for validation and for what is saved."""
        model = copy.deepcopy(self.state.model)
        for name in ("forward", "_original_forward"):  # accelerate's wrapper for autocast
            model.__dict__.pop(name, None)
        if self.state.ema is not None:
            self.state.ema.copy_to(model.parameters())
        return model.eval()
