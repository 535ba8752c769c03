"""The small prior on people that it never saw, beside baselines: a table in Markdown and a sheet of pictures.

python scripts/evaluate_small_prior.py FOLDER [--prior PATH]      # FOLDER: the people of scripts/train_small_prior.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from gafcore.diffusion.small.evaluation import BINS, Method, NearestPerson, evaluate
from gafcore.diffusion.small.people import N_VIEWS
from gafcore.diffusion.small.prior import SmallPrior, load_prior
from gafcore.diffusion.small.store import TEST_SEED, TRAIN_SEED, Batch, make_set, read_people
from gafcore.pictures import save_sheet


@dataclass(frozen=True)
class Evaluate:
    folder: tyro.conf.Positional[Path]
    """With the people."""
    prior: Path | None = None
    """A file of `train_small_prior.py export`; the shipped one by default."""
    sheet: Path | None = None
    """Where to write the pictures."""
    train_people: int = 640
    test_people: int = 64
    sampled_people: int = 32
    """Of these, how many the samplers with several steps are measured on."""


def methods(prior: SmallPrior) -> dict[str, Method]:
    """What does not need to know who is looked at."""

    def given(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return batch.image, batch.fill, batch.conditions

    def seeded(person: int, views: list[int]) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * person + views[0])

    def refined(level: float) -> Method:
        return lambda b, p, v: prior.denoise(*given(b), prior.regress(*given(b)), level, generator=seeded(p, v))

    return {
        "warp + fill": lambda b, p, v: b.fill,  # noqa: ARG005
        "regression": lambda b, p, v: prior.regress(*given(b)),  # noqa: ARG005
        "refined, t = 0.25": refined(0.25),
        "refined, t = 0.5": refined(0.5),
        "diffusion, 1 step": lambda b, p, v: prior.denoise(*given(b), steps=1, generator=seeded(p, v)),
        "diffusion, 10 steps": lambda b, p, v: prior.denoise(*given(b), generator=seeded(p, v)),
    }


def steered(prior: SmallPrior, people: dict, count: int) -> tuple[float, float]:
    """Normals exchanged for another view's, no warp: overlap (IoU) of the silhouette with that view's truth, and with its own."""
    with_donor, with_own = [], []
    for person in range(count):
        own = make_set(people, person, list(range(0, N_VIEWS, 2)), torch.ones(3))
        donor = make_set(people, person, list(range(N_VIEWS - 1, 0, -2)), torch.ones(3))
        normals = torch.cat([own.conditions[:, :, :1] * 0, donor.conditions[:, :, 1:]], 2)
        on_rig = (normals[:, :, 1:].abs().sum(2, keepdim=True) > 0).float()
        plain = torch.ones_like(own.fill) * (1 - on_rig) + own.fill.mean() * on_rig
        made = prior.regress(own.image, plain, normals)
        shape = (made.mean(2) < 0.95).float()
        for scores, truth in ((with_donor, donor.masks), (with_own, own.masks)):
            mask = (truth[:, :, 0] > 0.5).float()
            scores.append(float((shape * mask).sum() / ((shape + mask) > 0).sum()))
    return sum(with_donor) / count, sum(with_own) / count


def main(args: Evaluate) -> None:
    torch.set_num_threads(1)
    prior = load_prior(args.prior)
    people = read_people(args.folder, TEST_SEED, args.test_people)
    nearest = NearestPerson(read_people(args.folder, TRAIN_SEED, args.train_people), people)
    every = {"nearest training person": nearest, **methods(prior)}
    print(f"| method | people | {' | '.join(f'{low}-{high}°: full / head dB, sharpness' for low, high in BINS)} |")
    print("|---" * (len(BINS) + 2) + "|")
    for name, method in every.items():
        count = args.sampled_people if "refined" in name or "steps" in name else args.test_people
        scores = evaluate({k: v[:count] for k, v in people.items()}, {name: method})[name]
        cells = [f"{s.psnr:.2f} / {s.psnr_head:.2f}, {s.sharpness:.2f}" for s in scores.values()]
        print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)
    donor, own = steered(prior, people, args.sampled_people)
    print(f"normals of another view, no warp: IoU with that view {donor:.2f}, with its own {own:.2f}")
    if args.sheet is not None:
        write_sheet(args.sheet, prior, people)


def write_sheet(path: Path, prior: SmallPrior, people: dict) -> None:
    """Eight people: the input, then for each of three views what is given (warp + fill), regression, a refined one, and the truth."""
    rows = []
    for person in range(8):
        batch = make_set(people, person, [0, 2, 5, 7], torch.ones(3))
        given = (batch.image, batch.fill, batch.conditions)
        regressed = prior.regress(*given)
        refined = prior.denoise(*given, regressed, 0.5, generator=torch.Generator().manual_seed(person))
        row = [batch.image[0, :3]] + [x[0, k] for k in (0, 1, 3) for x in (batch.fill, regressed, refined, batch.targets)]
        rows.append([((x + 1) / 2).clamp(0, 1).permute(1, 2, 0) for x in row])
    save_sheet(path, rows, (), ("input", *("given", "regression", "refined", "truth") * 3), cell_px=84)


if __name__ == "__main__":
    main(tyro.cli(Evaluate))
