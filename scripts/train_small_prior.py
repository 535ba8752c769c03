"""Make the shipped prior again: people, regression, diffusion, one file. docs/small_prior.md has the commands and what came of them.

    python scripts/train_small_prior.py people FOLDER                          # --part 0 --parts 2 shares the work
    python scripts/train_small_prior.py regression FOLDER --stop 1500
    python scripts/train_small_prior.py diffusion FOLDER                       # from the regression's weights so far
    python scripts/train_small_prior.py regression FOLDER --stop 1750
    python scripts/train_small_prior.py polish FOLDER                          # the regression on a second schedule
    python scripts/train_small_prior.py export FOLDER --out small_prior.safetensors

Where it stops is where the processor time that there was ended; --steps and --stop give it more. With --parts N the processes of a training
average their gradients: another result than one process has, for each draws batches of its own. Equal commands give equal bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
import tyro
from safetensors.torch import load_file

from gafcore.diffusion.small.network import NetworkConfig
from gafcore.diffusion.small.prior import save_prior
from gafcore.diffusion.small.store import TEST_SEED, TRAIN_SEED, GrowingPeople, write_people
from gafcore.diffusion.small.training import TrainConfig, train
from gafcore.rigs import load_rig

CONFIGS = {
    "regression": TrainConfig(task="regression", steps=2200, learning_rate=8e-4),
    "diffusion": TrainConfig(task="diffusion", steps=700, learning_rate=5e-4),
    "polish": TrainConfig(task="regression", steps=1400, learning_rate=6e-4, seed=1),
}


@dataclass(frozen=True)
class Make:
    stage: tyro.conf.Positional[Literal["people", "regression", "diffusion", "polish", "export"]]
    folder: tyro.conf.Positional[Path]
    """Work folder: people, checkpoints, log."""
    out: Path = Path("small_prior.safetensors")
    """What `export` writes."""
    train_people: int = 640
    test_people: int = 64
    part: int = 0
    parts: int = 1
    steps: int | None = None
    """Length of the stage's schedule; what the shipped file was made with by default."""
    stop: int | None = None
    """Stop after so many steps, on the schedule of `steps`."""
    start: Path | None = None
    """Weights that diffusion begins with; those of the finished regression by default."""


def main(args: Make) -> None:
    torch.set_num_threads(1)
    if args.stage == "people":
        rig = load_rig("procedural")
        for seed, count in ((TEST_SEED, args.test_people), (TRAIN_SEED, args.train_people)):
            write_people(rig, args.folder, seed, count, lambda line: print(line, flush=True), part=args.part, parts=args.parts)
    elif args.stage == "export":
        _export(args)
    else:
        _train(args)


def _train(args: Make) -> None:
    if args.parts > 1:
        store = (args.folder / f"{args.stage}.store").absolute()
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=args.part, world_size=args.parts)
    config = CONFIGS[args.stage]
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    people = GrowingPeople(args.folder, args.train_people)
    if args.stage == "polish":
        people = replace(people, first_epoch=args.train_people)
    start = args.start or args.folder / "regression" / "weights.safetensors"
    train(people, config, args.folder / args.stage, start=None if args.stage == "regression" else start, stop=args.stop, report=_log())


def _export(args: Make) -> None:
    folders = {"regression": args.folder / "polish", "diffusion": args.folder / "diffusion"}
    weights = {task: load_file(folder / "weights.safetensors") for task, folder in folders.items()}
    info = {"people": args.train_people, "first_seed": TRAIN_SEED}
    save_prior(args.out, weights, NetworkConfig(), info)


def _log(every: int = 20) -> Callable[[int, float], None]:
    """Prints the mean loss and the processor time a step."""
    losses: list[float] = []
    since = time.process_time()

    def report(step: int, loss: float) -> None:
        nonlocal since
        losses.append(loss)
        if step % every == 0:
            now = time.process_time()
            print(f"step {step} loss {sum(losses) / len(losses):.5f} {(now - since) / len(losses):.3f} s of processor a step", flush=True)
            losses.clear()
            since = now

    return report


if __name__ == "__main__":
    main(tyro.cli(Make))
