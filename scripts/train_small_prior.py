"""Make the shipped prior again: people, regression, diffusion, one file. docs/small_prior.md has the commands and what came of them.

With a GPU and many cores, in minutes (scripts/train_small_prior_on_gpu.sh does all of it):

    python scripts/train_small_prior.py people FOLDER --workers 15 --train-people 12000 --minutes 4 &
    python scripts/train_small_prior.py regression FOLDER --device cuda --minutes 2.5 --wait-people 256 --train-people 12000
    python scripts/train_small_prior.py diffusion FOLDER --device cuda --minutes 1.5 --train-people 12000
    python scripts/train_small_prior.py export FOLDER --out small_prior.safetensors

With a processor only, and the same bits every time:

    python scripts/train_small_prior.py people FOLDER                          # --workers 2 shares the work
    python scripts/train_small_prior.py regression FOLDER --stop 1500
    python scripts/train_small_prior.py diffusion FOLDER                       # from the regression's weights so far
    python scripts/train_small_prior.py regression FOLDER --stop 1750
    python scripts/train_small_prior.py polish FOLDER                          # the regression on a second schedule
    python scripts/train_small_prior.py export FOLDER --out small_prior.safetensors

With --parts N the processes of a training on processors average their gradients: another result than one process has, for each draws
batches of its own. Equal commands give equal bits.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
import tyro
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gafcore.diffusion.small.network import NetworkConfig
from gafcore.diffusion.small.prior import load_prior, save_prior
from gafcore.diffusion.small.resident import ResidentPeople
from gafcore.diffusion.small.store import TEST_SEED, TRAIN_SEED, GrowingPeople, write_people
from gafcore.diffusion.small.timed import Progress, train_timed
from gafcore.diffusion.small.training import TrainConfig, train
from gafcore.rigs import load_rig

CONFIGS = {
    "regression": TrainConfig(task="regression", steps=2200, learning_rate=8e-4),
    "diffusion": TrainConfig(task="diffusion", steps=700, learning_rate=5e-4),
    "polish": TrainConfig(task="regression", steps=1400, learning_rate=6e-4, seed=1),
}
# With --minutes: batches that fill a GPU, and more weight decay, for everyone is seen hundreds of times.
_ENDLESS = 10_000_000
TIMED = {
    "regression": TrainConfig(task="regression", steps=_ENDLESS, batch=32, learning_rate=1e-3, warmup=300, ema=0.999, weight_decay=0.05),
    "diffusion": TrainConfig(task="diffusion", steps=_ENDLESS, batch=32, learning_rate=6e-4, warmup=300, ema=0.999, weight_decay=0.05),
}
_TUNED = 0.4  # of the highest learning rate, for networks that have learned before
_START = time.monotonic()


@dataclass(frozen=True)
class Make:
    stage: tyro.conf.Positional[Literal["people", "regression", "diffusion", "polish", "export"]]
    folder: tyro.conf.Positional[Path]
    """Work folder: people, checkpoints, log."""
    out: Path = Path("small_prior.safetensors")
    """What `export` writes."""
    train_people: int = 640
    """To make; with --minutes, at most so many are learned from."""
    test_people: int = 64
    workers: int = 1
    """Processes that make people; the same people whatever their number."""
    minutes: float | None = None
    """Of the clock, from the command's start: `people` then stops where it is, `regression` and `diffusion` cool down towards it."""
    device: str = "cpu"
    """"cuda" for training in --minutes on a GPU."""
    batch: int | None = None
    """Sets a step, with --minutes."""
    learning_rate: float | None = None
    """Highest, with --minutes."""
    graph: bool = True
    """On CUDA: replay a captured step."""
    wait_people: int = 1
    """With --minutes: begin when so many people are there; others may be made meanwhile."""
    part: int = 0
    parts: int = 1
    steps: int | None = None
    """Length of the stage's schedule; what the processor's file was made with by default, no limit with --minutes."""
    stop: int | None = None
    """Stop after so many steps, on the schedule of `steps`."""
    condition: Literal["rig", "pose"] = "rig"
    """What tells the networks where a view is: the rig, or, for comparison, its camera's place alone (no normals, no warp)."""
    start: Path | None = None
    """Weights that diffusion begins with; those of the finished regression by default."""
    init: Path | None = None
    """With --minutes: a prior (or "shipped") whose network of the stage the training begins with, at a lower rate."""
    people_folder: Path | None = None
    """With --minutes: where the people are; FOLDER by default."""


def main(args: Make) -> None:
    torch.set_num_threads(1)
    if args.stage == "people":
        _people(args)
    elif args.stage == "export":
        _export(args)
    elif args.minutes is not None:
        _train_timed(args, args.minutes)
    else:
        _train(args)


def _people(args: Make) -> None:
    if args.workers == 1 and args.minutes is None:
        return _work(args.folder, args.test_people, args.train_people, args.part, args.parts)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the workers too
    context = multiprocessing.get_context("spawn")
    given = [(args.folder, args.test_people, args.train_people, k, args.workers) for k in range(args.workers)]
    workers = [context.Process(target=_work, args=one, daemon=True) for one in given]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(None if args.minutes is None else max(0.0, 60 * args.minutes - (time.monotonic() - _START)))
    for worker in workers:
        worker.terminate()
    failed = [w.exitcode for w in workers if w.exitcode not in (0, None, -signal.SIGTERM)]
    if failed:
        sys.exit(f"{len(failed)} of {args.workers} workers failed; what they had made is kept")


def _work(folder: Path, test_people: int, train_people: int, part: int, parts: int) -> None:
    torch.set_num_threads(1)
    rig = load_rig("procedural")
    for seed, count in ((TEST_SEED, test_people), (TRAIN_SEED, train_people)):
        write_people(rig, folder, seed, count, lambda line: print(line, flush=True), part=part, parts=parts)


def _train_timed(args: Make, minutes: float) -> None:
    if args.stage not in TIMED:
        sys.exit(f"--minutes is for {' and '.join(TIMED)}; {args.stage} takes --steps")
    config = TIMED[args.stage]
    if args.init is not None:
        config = replace(config, learning_rate=_TUNED * config.learning_rate)
    given = {"batch": args.batch, "learning_rate": args.learning_rate, "steps": args.steps}
    config = _of_condition(replace(config, **{name: value for name, value in given.items() if value is not None}), args)
    start = _start(args)
    source = args.people_folder or args.folder
    people = ResidentPeople(source, args.train_people, torch.device(args.device))
    while people.refresh() < args.wait_people:
        if time.monotonic() - _START > 60 * minutes:
            sys.exit(f"{source}: only {people.count} of {args.wait_people} people in {minutes:g} minutes")
        time.sleep(0.5)
    print(f"{time.monotonic() - _START:.1f} s: {people.count} people on {args.device}", flush=True)
    left = 60 * minutes - (time.monotonic() - _START)
    steps = train_timed(
        people, config, args.folder / args.stage / "weights.safetensors", left,
        start=start, graph=args.graph, report=_clock(config),
    )  # fmt: skip
    print(f"{args.stage}: {steps} steps of {config.batch} sets from {people.count} people", flush=True)


def _start(args: Make) -> Path | None:
    """The weights that training begins with."""
    if args.init is None:
        return (args.start or args.folder / "regression" / "weights.safetensors") if args.stage == "diffusion" else None
    prior = load_prior(None if str(args.init) == "shipped" else args.init)
    network = prior.regression if args.stage == "regression" else prior.diffusion
    if network is None or network.config != NetworkConfig(condition=args.condition):
        sys.exit(f"{args.init}: has no {args.stage} of condition {args.condition} and the usual sizes to begin with")
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / f"{args.stage}_init.safetensors"
    save_file(network.state_dict(), path)
    return path


def _train(args: Make) -> None:
    if args.parts > 1:
        store = (args.folder / f"{args.stage}.store").absolute()
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=args.part, world_size=args.parts)
    config = CONFIGS[args.stage]
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    config = _of_condition(config, args)
    people = GrowingPeople(args.folder, args.train_people)
    if args.stage == "polish":
        people = replace(people, first_epoch=args.train_people)
    start = args.start or args.folder / "regression" / "weights.safetensors"
    train(people, config, args.folder / args.stage, start=None if args.stage == "regression" else start, stop=args.stop, report=_log())


def _of_condition(config: TrainConfig, args: Make) -> TrainConfig:
    return replace(config, network=replace(config.network, condition=args.condition))


def _export(args: Make) -> None:
    """Of networks that were not trained in this folder yet, the shipped file's weights are kept, and `info` says so; they do not fit
    another condition, whose file holds a regression only until its diffusion is trained."""
    shipped, weights, info = load_prior(), {}, {"first_seed": TRAIN_SEED}
    for task, stages in {"regression": ("polish", "regression"), "diffusion": ("diffusion",)}.items():
        paths = [path for stage in stages if (path := args.folder / stage / "weights.safetensors").exists()]
        if not paths:
            if args.condition == shipped.condition:
                weights[task], info[task] = getattr(shipped, task).state_dict(), "not trained: of the file before"
            elif task == "diffusion":
                info[task] = "not trained"
            else:
                sys.exit(f"{args.folder}: holds no regression's weights, and the shipped ones are for another condition")
            continue
        weights[task] = load_file(paths[0])
        with safe_open(paths[0], "pt") as file:
            info[task] = {"stage": paths[0].parent.name, **file.metadata()}
    save_prior(args.out, weights, NetworkConfig(condition=args.condition), info)
    print(f"{args.out}: {info}")


def _clock(config: TrainConfig, every_s: float = 2.0) -> Callable[[Progress], None]:
    """Prints a line every few seconds: loss, speed, people."""
    losses: list[float] = []
    then = Progress(0, 0.0, 0.0, 0.0, 0)

    def report(now: Progress) -> None:
        nonlocal then
        losses.append(now.loss)
        if now.seconds - then.seconds >= every_s:
            ms = 1000 * (now.seconds - then.seconds) / (now.step - then.step)
            loss = sum(losses) / len(losses)
            print(
                f"{now.seconds:.0f} s: step {now.step} loss {loss:.5f} rate {now.rate:.1e}, {ms:.1f} ms a step of {config.batch},"
                f" {now.people} people",
                flush=True,
            )
            losses.clear()
            then = now

    return report


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
