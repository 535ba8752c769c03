"""Synthetic people on disk, and the batches that training draws from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from gafcore.captures.synthetic.noise import generator, uniform
from gafcore.diffusion.small.people import N_VIEWS, Person, make_person
from gafcore.diffusion.small.pose import pose_only
from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_path
from gafcore.rigs.base import Rig

CHUNK = 32  # people in a file
FORMAT = "gafcore people 1"  # another number when the arrays, or what a seed makes, mean something else
TRAIN_SEED, TEST_SEED = 1_000_000, 2_000_000  # the first person's; demos and tests use small numbers


def write_people(
    rig: Rig, folder: Path, first_seed: int, count: int, report: Callable[[str], None] = print, *, part: int = 0, parts: int = 1
) -> None:
    """Make people `first_seed`... in files of `CHUNK`; files that are there already are kept, so a stopped run goes on.

    `parts` processes may share the work, each with its own `part`.

    Raises:
        InputError: A file that is there has another format.
    """
    for start in range(part * CHUNK, count, parts * CHUNK):
        n = min(CHUNK, count - start)
        if write_chunk(rig, folder, first_seed + start, n):
            report(f"people {start + n} of {count}")


def write_chunk(rig: Rig, folder: Path, first_seed: int, count: int) -> bool:
    """One file of people; whether it had to be made.

    Raises:
        InputError: It is there in another format.
    """
    path = folder / f"people_{first_seed}.safetensors"
    if path.exists():
        with safe_open(path, "np") as file:
            _check_format(path, file.metadata())
        return False
    people = [make_person(rig, first_seed + i) for i in range(count)]
    arrays = {name: np.ascontiguousarray(np.stack([getattr(p, name) for p in people])) for name in Person.names()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, {"format": FORMAT})
    return True


def read_chunk(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one file of `write_chunk`.

    Raises:
        InputError: It has another format.
    """
    with safe_open(path, "np") as file:
        _check_format(path, file.metadata())
        return {name: file.get_tensor(name) for name in Person.names()}


def _check_format(path: Path, metadata: dict[str, str] | None) -> None:
    """Another version's people would pass for this one's: what a seed makes can change while names and shapes stay."""
    found = (metadata or {}).get("format", "none")
    if found != FORMAT:
        raise InputError(
            f"{path}: has format {found!r}, expected {FORMAT!r}: another version of gafcore wrote it;"
            " render the people again in an empty folder with scripts/train_small_prior.py people"
        )


def chunks_there(folder: Path, first_seed: int, count: int) -> list[Path]:
    """The files of people `first_seed`... to `first_seed + count - 1` that have been made so far, in the order of their seeds."""
    paths = (folder / f"people_{first_seed + start}.safetensors" for start in range(0, count, CHUNK))
    return [path for path in paths if path.exists()]


def read_people(folder: Path, first_seed: int, count: int) -> dict[str, np.ndarray]:
    """The arrays of `Person`, one row a person, in the order of their seeds.

    Raises:
        MissingError: A file is missing.
        InputError: One has another format.
    """
    parts = []
    for start in range(0, count, CHUNK):
        path = folder / f"people_{first_seed + start}.safetensors"
        if not path.exists():
            raise MissingError(f"{path}: no such file; make it with scripts/train_small_prior.py people")
        parts.append(read_chunk(path))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in Person.names()}


@dataclass(frozen=True)
class Batch:
    """Training sets, channels first, colours in -1..1."""

    image: Float[Tensor, "B 6 H W"]  # the input picture and the rig's normals in it
    fill: Float[Tensor, "B N 3 H W"]
    conditions: Float[Tensor, "B N 4 H W"]  # visibility, normals
    targets: Float[Tensor, "B N 3 H W"]
    masks: Float[Tensor, "B N 1 H W"]  # coverage by head and hair
    background: Float[Tensor, "B 3"]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in Batch.__dataclass_fields__))


@dataclass
class GrowingPeople:
    """The people of a folder for training. Early epochs draw from the first ones only, so training may begin while later ones are made.

    The first `patience` epochs draw from the first `first_epoch`, the next from twice as many, and so on until `total`.
    """

    folder: Path
    total: int
    first_epoch: int = 512
    patience: int = 6
    first_seed: int = TRAIN_SEED
    _arrays: dict[str, np.ndarray] = field(default_factory=dict)
    _orders: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def draw(self, seed: int, n: int) -> int:
        """The person of the n-th set of a training: everyone once an epoch, in a new order every epoch."""
        epoch, size = 0, min(self.first_epoch, self.total)
        while n >= size:
            n, epoch = n - size, epoch + 1
            size = min(self.first_epoch * (1 + epoch // self.patience), self.total)
        if (seed, epoch) not in self._orders:
            self._orders = {(seed, epoch): torch.randperm(size, generator=generator(seed, f"order {epoch}")).tolist()}
        return self._orders[seed, epoch][n]

    def including(self, person: int) -> dict[str, np.ndarray]:
        """Arrays that reach as far as this person."""
        have = len(self._arrays.get("image", ()))
        if person >= have:
            steps = -(-(person + 1) // self.first_epoch)
            self._arrays = read_people(self.folder, self.first_seed, min(steps * self.first_epoch, self.total))
        return self._arrays


def training_batch(people: GrowingPeople, size: int, n_views: int, seed: int, step: int, condition: str = "rig") -> Batch:
    """The batch of a step: a function of the seed and the step alone. Mirrored, recoloured, on random backgrounds."""
    rng = generator(seed, f"batch {step}")
    sets = []
    for k in range(size):
        person = people.draw(seed, step * size + k)
        views = torch.randperm(N_VIEWS, generator=rng)[:n_views].tolist()
        made = recolor(make_set(people.including(person), person, views, random_background(rng), condition), rng)
        sets.append(mirror(made, condition) if uniform(rng, 0, 1) < 0.5 else made)
    return join(sets)


def make_set(
    people: dict[str, np.ndarray], person: int, views: Sequence[int], background: Float[Tensor, "3"], condition: str = "rig"
) -> Batch:
    """One person from some of the views, as a batch of one for networks of this `NetworkConfig.condition`."""
    chosen = list(views)
    image, targets = _floats(people["image"][person]), _floats(people["targets"][person, chosen])
    normals, image_normals = _normals(people["normals"][person, chosen]), _normals(people["image_normals"][person])
    on_rig = (normals.abs().sum(1, keepdim=True) > 0).float()
    behind = background[:, None, None]
    fill = _floats(people["fill"][person, chosen]) + (1 - on_rig) * behind
    visibility = _floats(people["visibility"][person, chosen][..., None])
    picture = image[:3] + (1 - image[3:]) * behind
    truth = targets[:, :3] + (1 - targets[:, 3:]) * behind
    made = Batch(
        image=torch.cat([2 * picture - 1, image_normals])[None],
        fill=2 * fill[None] - 1,
        conditions=torch.cat([visibility, normals], 1)[None],
        targets=2 * truth[None] - 1,
        masks=targets[None, :, 3:],
        background=background[None],
    )
    return made if condition == "rig" else posed(made, torch.from_numpy(people["placements"][person, chosen])[None])


def posed(batch: Batch, placements: Float[Tensor, "B N 4"]) -> Batch:
    """For networks that see neither normals nor warp (`pose.py`)."""
    image, fill, conditions = pose_only(batch.image, batch.fill, batch.conditions, batch.background, placements)
    return replace(batch, image=image, fill=fill, conditions=conditions)


def random_background(rng: torch.Generator) -> Float[Tensor, "3"]:
    """White or black now and then, as captures have them; any colour else."""
    kind = uniform(rng, 0, 1)
    return torch.ones(3) if kind < 0.2 else torch.zeros(3) if kind < 0.3 else torch.rand(3, generator=rng)


def recolor(batch: Batch, rng: torch.Generator) -> Batch:
    """Another exposure, white balance and contrast, the same for picture and views."""
    gain = (0.15 * torch.randn(1, generator=rng) + 0.06 * torch.randn(3, generator=rng)).exp()
    contrast = math.exp(0.10 * float(torch.randn(1, generator=rng)))
    gain, offset = contrast * gain[:, None, None], contrast * (gain[:, None, None] - 1)
    change = lambda x: (gain * x + offset).clamp(-1, 1)  # noqa: E731  (on 0..1: times the gain, then away from 0.5 by the contrast)
    image = torch.cat([change(batch.image[:, :3]), batch.image[:, 3:]], 1)
    background = (change(2 * batch.background[0][:, None, None] - 1)[:, 0, 0] + 1) / 2
    return Batch(image, change(batch.fill), batch.conditions, change(batch.targets), batch.masks, background[None])


def mirror(batch: Batch, condition: str = "rig") -> Batch:
    """Left and right exchanged, for networks of this `NetworkConfig.condition`."""
    image, conditions = batch.image.flip(-1), batch.conditions.flip(-1)
    image[:, 3] *= -1
    conditions[:, :, 1] *= -1
    if condition == "pose":
        conditions[:, :, 0] *= -1  # the roll; else visibility
    return Batch(image, batch.fill.flip(-1), conditions, batch.targets.flip(-1), batch.masks.flip(-1), batch.background)


def join(sets: Sequence[Batch]) -> Batch:
    return Batch(*(torch.cat([getattr(s, name) for s in sets]) for name in Batch.__dataclass_fields__))


def _floats(x: np.ndarray) -> Tensor:
    """uint8 [..., H, W, A] to [..., A, H, W] in 0..1."""
    return torch.from_numpy(x).movedim(-1, -3).float() / 255


def _normals(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).movedim(-1, -3).float() / 127
