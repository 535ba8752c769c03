"""The small prior on people that it never saw, beside baselines: a table in Markdown, all figures as JSON, a sheet of pictures.

python scripts/evaluate_small_prior.py FOLDER [--prior PATH] [--device cuda]      # FOLDER: the people of scripts/train_small_prior.py
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from gafcore.diffusion.small.agreement import root_mean_disagreement
from gafcore.diffusion.small.evaluation import BINS, Method, NearestPerson, Score, Sets, batch_of, evaluate, sets_of
from gafcore.diffusion.small.found_hair import HANGING
from gafcore.diffusion.small.people import N_VIEWS, look_of, make_input
from gafcore.diffusion.small.prior import SmallPrior, load_prior
from gafcore.diffusion.small.reproduction import reproduction_error
from gafcore.diffusion.small.store import CHUNK, TEST_SEED, TRAIN_SEED, Batch, read_people
from gafcore.pictures import save_sheet
from gafcore.rigs import load_rig

People = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evaluate:
    folder: tyro.conf.Positional[Path]
    """With the people."""
    prior: Path | None = None
    """A file of `train_small_prior.py export`; the shipped one by default."""
    json: Path | None = None
    """Where to write the figures; after every method, so that a run that is cut off leaves what it had."""
    sheet: Path | None = None
    """Where to write the pictures."""
    device: str = "cpu"
    train_people: int = 640
    """Among whom the nearest is searched."""
    test_people: int = 64
    sampled_people: int = 32
    """Of these, how many the samplers with several steps, and the agreement of views, are measured on."""


def methods(prior: SmallPrior) -> dict[str, Method]:
    """What does not need to know who is looked at, but for the noise; of a prior without diffusion, its regression."""

    def given(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return batch.image, batch.fill, batch.conditions

    def refined(level: float) -> Method:
        return lambda b, s: prior.denoise(*given(b), prior.regress(*given(b)), level, generator=seeded(s))

    regression = {
        "regression": lambda b, s: prior.regress(*given(b)),  # noqa: ARG005
        "warp + fill": lambda b, s: b.fill,  # noqa: ARG005
    }
    if prior.diffusion is None:
        return regression
    return regression | {
        "refined, t = 0.25": refined(0.25),
        "refined, t = 0.5": refined(0.5),
        "diffusion, 1 step": lambda b, s: prior.denoise(*given(b), steps=1, generator=seeded(s)),
        "diffusion, 10 steps": lambda b, s: prior.denoise(*given(b), generator=seeded(s)),
    }


def seeded(sets: Sets, more: int = 0) -> torch.Generator:
    """Noise for these sets; `more` for another draw."""
    person, views = sets[0]
    return torch.Generator().manual_seed(1000 * person + views[0] + 1_000_000 * more)


def agreement(prior: SmallPrior, people: People, count: int, device: str) -> dict[str, float]:
    """Root mean square difference (0..1) of points that two views show and the input does not: views made together, and each with noise
    of its own; the regression's and the truth's for comparison (light and locks differ a little from side to side there too)."""
    rig, made = load_rig("procedural"), {}
    sets = sets_of(count)
    for start in range(0, len(sets), 16):
        group = sets[start : start + 16]
        batch = batch_of(people, group, 1.0, device, prior.condition)
        given = (batch.image, batch.fill, batch.conditions)
        draws = [prior.denoise(*given, generator=seeded(group, k)) for k in range(batch.fill.shape[1])]
        alone = torch.stack([draw[:, k] for k, draw in enumerate(draws)], 1)
        views = {"together": draws[0], "independent": alone, "regression": prior.regress(*given), "truth": batch.targets}
        for name, x in views.items():
            made.setdefault(name, []).append(x.cpu())
    return {name: root_mean_disagreement(rig, people, TEST_SEED, sets, torch.cat(x)) for name, x in made.items()}


def reproduced(prior: SmallPrior, count: int) -> list[float]:
    """Each person's own input picture, drawn again at its own camera: PSNR on the head, white and black behind it. Sorted."""
    rig, cpu, scores = load_rig("procedural"), prior.to("cpu"), []
    for seed in range(TEST_SEED, TEST_SEED + count):
        picture, camera, tracked = make_input(rig, seed)
        errors = [reproduction_error(cpu, picture, camera, rig, tracked, torch.full((3,), x)) for x in (0.0, 1.0)]
        found = [e for e in errors if e is not None]
        if found:
            scores.append(-10 * math.log10(sum(found) / len(found)))
    return sorted(scores)


def steered(prior: SmallPrior, people: People, count: int, device: str) -> dict[str, float]:
    """Normals exchanged for another view's, no warp: overlap (IoU) of the silhouette with that view's truth, and with its own."""
    persons = range(count)
    own = batch_of(people, [(p, list(range(0, N_VIEWS, 2))) for p in persons], 1.0, device)
    donor = batch_of(people, [(p, list(range(N_VIEWS - 1, 0, -2))) for p in persons], 1.0, device)
    normals = torch.cat([own.conditions[:, :, :1] * 0, donor.conditions[:, :, 1:]], 2)
    on_rig = (normals[:, :, 1:].abs().sum(2, keepdim=True) > 0).float()
    plain = torch.ones_like(own.fill) * (1 - on_rig) + own.fill.mean((1, 2, 3, 4), keepdim=True) * on_rig
    shape = (prior.regress(own.image, plain, normals).mean(2) < 0.95).float()
    scores = {}
    for name, truth in (("donor", donor.masks), ("own", own.masks)):
        mask = (truth[:, :, 0] > 0.5).float()
        overlap = (shape * mask).flatten(1).sum(1) / ((shape + mask) > 0).float().flatten(1).sum(1)
        scores[name] = float(overlap.mean())
    return scores


def main(args: Evaluate) -> None:
    torch.set_num_threads(1)
    begin = time.monotonic()
    prior = load_prior(args.prior).to(args.device)
    people = read_people(args.folder, TEST_SEED, args.test_people)
    training = read_people(args.folder, TRAIN_SEED, args.train_people)
    figures = {"device": args.device, "people": args.test_people, "searched": args.train_people, "methods": {}}

    def keep() -> None:
        if args.json is not None:
            args.json.write_text(json.dumps(figures, indent=1))

    def row(name: str, method: Method, who: People) -> None:
        scores = evaluate(who, {name: method}, device=args.device, condition=prior.condition)[name]
        figures["methods"][name] = {"people": len(who["image"]), "bins": {f"{a}-{b}": asdict(s) for (a, b), s in scores.items()}}
        print(_line(name, len(who["image"]), scores), flush=True)
        keep()

    print(f"| method | people | {' | '.join(f'{low}-{high}°: full / head dB, sharpness' for low, high in BINS)} |")
    print("|---" * (len(BINS) + 2) + "|")
    every: dict[str, Callable] = {**methods(prior), "nearest training person": NearestPerson(training, people)}
    first = {k: v[: args.sampled_people] for k, v in people.items()}
    for name, method in every.items():
        row(name, method, first if "refined" in name or "steps" in name else people)
    row("regression, training people", every["regression"], {k: v[:CHUNK] for k, v in training.items()})
    hanging = [i for i in range(args.test_people) if look_of(TEST_SEED + i).hair_style in HANGING]
    if hanging:
        for name in ("regression", "warp + fill"):
            row(f"{name}, bob and long hair", every[name], {k: v[hanging] for k, v in people.items()})
    if args.sheet is not None:
        write_sheet(args.sheet, prior, people, args.device)
    if prior.condition == "rig":
        figures["normals swapped"] = scores = steered(prior, people, args.sampled_people, args.device)
        print(f"normals of another view, no warp: IoU with that view {scores['donor']:.2f}, with its own {scores['own']:.2f}", flush=True)
        keep()
    if prior.diffusion is not None:
        figures["disagreement"] = rms = agreement(prior, people, args.sampled_people, args.device)
        print("difference of points that two views show, 0..1: " + ", ".join(f"{name} {x:.4f}" for name, x in rms.items()))
    figures["reproduction"] = again = reproduced(prior, args.test_people)
    print(f"own picture again: median {statistics.median(again):.2f} dB on the head, {again[0]:.1f} to {again[-1]:.1f}", flush=True)
    figures["seconds"] = time.monotonic() - begin
    keep()


def _line(name: str, count: int, scores: dict[tuple[int, int], Score]) -> str:
    cells = [f"{s.psnr:.2f} / {s.psnr_head:.2f}, {s.sharpness:.2f}" for s in scores.values()]
    return f"| {name} | {count} | {' | '.join(cells)} |"


def write_sheet(path: Path, prior: SmallPrior, people: People, device: str) -> None:
    """Eight people: the input, then for each of three views what is given (warp + fill), regression, a refined one (where the prior has a
    diffusion), and the truth."""
    rows, columns = [], ("given", "regression", "refined", "truth") if prior.diffusion is not None else ("given", "regression", "truth")
    for person in range(min(8, len(people["image"]))):
        batch = batch_of(people, [(person, [0, 2, 5, 7])], 1.0, device, prior.condition)
        given = (batch.image, batch.fill, batch.conditions)
        regressed = prior.regress(*given)
        made = {"given": batch.fill, "regression": regressed, "truth": batch.targets}
        if prior.diffusion is not None:
            made["refined"] = prior.denoise(*given, regressed, 0.5, generator=torch.Generator().manual_seed(person))
        row = [batch.image[0, :3]] + [made[name][0, k] for k in (0, 1, 3) for name in columns]
        rows.append([((x + 1) / 2).clamp(0, 1).permute(1, 2, 0).cpu() for x in row])
    save_sheet(path, rows, (), ("input", *columns * 3), cell_px=84)


if __name__ == "__main__":
    main(tyro.cli(Evaluate))
