"""People on an accelerator, as bytes, and training batches put together there: no work for each sample on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gafcore.diffusion.small.people import N_VIEWS
from gafcore.diffusion.small.pose import mirrored
from gafcore.diffusion.small.store import TRAIN_SEED, Batch, chunks_there, posed, read_chunk

_KEPT = ("image", "image_normals", "targets", "fill", "visibility", "normals", "placements")  # what training reads of a `Person`


@dataclass(frozen=True)
class Draw:
    """What chance decides about a batch (with a leading K: about K batches); `store.training_batch` draws the same quantities."""

    people: Int[Tensor, "*K B"]
    views: Int[Tensor, "*K B N"]
    background: Float[Tensor, "*K B 3"]
    gain: Float[Tensor, "*K B 3"]
    contrast: Float[Tensor, "*K B"]
    mirrored: Bool[Tensor, "*K B"]

    def tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(Draw)]

    def at(self, k: int) -> list[Tensor]:
        """Of batch k of K, in the order of the fields."""
        return [x[k] for x in self.tensors()]

    def to(self, device: torch.device) -> Draw:
        return Draw(*(x.to(device) for x in self.tensors()))


def draw_batches(rng: torch.Generator, n_people: int, steps: int, size: int, n_views: int) -> Draw:
    """Chance for `steps` batches of `size` sets at once, on the processor. People are drawn with repetition."""
    shape = (steps, size)
    uniform = torch.rand(*shape, 1, generator=rng)
    anyhow = torch.rand(*shape, 3, generator=rng)
    background = torch.where(uniform < 0.2, torch.ones(3), torch.where(uniform < 0.3, torch.zeros(3), anyhow))
    exposure, balance = torch.randn(*shape, 1, generator=rng), torch.randn(*shape, 3, generator=rng)
    return Draw(
        people=torch.randint(n_people, shape, generator=rng),
        views=torch.rand(*shape, N_VIEWS, generator=rng).argsort(-1)[..., :n_views].contiguous(),
        background=background,
        gain=(0.15 * exposure + 0.06 * balance).exp(),
        contrast=(0.10 * torch.randn(*shape, generator=rng)).exp(),
        mirrored=torch.rand(*shape, generator=rng) < 0.5,
    )


class ResidentPeople:
    """The people of a folder on `device`, up to `capacity` of them; files that are made while training goes on join at `refresh`."""

    def __init__(self, folder: Path, capacity: int, device: torch.device, *, first_seed: int = TRAIN_SEED) -> None:
        self.folder, self.capacity, self.device, self.first_seed = folder, capacity, device, first_seed
        self.count = 0
        self.tensors: dict[str, Tensor] = {}
        self._read: set[Path] = set()

    def refresh(self, at_most: int | None = None) -> int:
        """Take in files made since the last time, `at_most` of them; how many people there are now.

        Raises:
            InputError: One has another format than this version's.
        """
        new = [p for p in chunks_there(self.folder, self.first_seed, self.capacity) if p not in self._read]
        for path in new[:at_most]:
            self.add(read_chunk(path))
            self._read.add(path)
        return self.count

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """More people; what is over the capacity is left out."""
        n = min(len(arrays["image"]), self.capacity - self.count)
        for name in _KEPT:
            x = torch.from_numpy(arrays[name][:n])
            if name not in self.tensors:
                self.tensors[name] = torch.zeros(self.capacity, *x.shape[1:], dtype=x.dtype, device=self.device)
            self.tensors[name][self.count : self.count + n] = x.to(self.device)
        self.count += n

    def batch(self, draw: Draw, condition: str = "rig") -> Batch:
        """The batch for networks of this `NetworkConfig.condition`."""
        made = self._batch(draw)
        if condition == "rig":
            return made
        placements = self.tensors["placements"][draw.people[:, None], draw.views]
        return posed(made, torch.where(draw.mirrored[:, None, None], mirrored(placements), placements))

    def _batch(self, draw: Draw) -> Batch:
        """The batch that `draw`, on the device, describes: what `store.make_set`, `recolor` and `mirror` make of each set."""
        of, views = draw.people, (draw.people[:, None], draw.views)
        image, targets = _floats(self.tensors["image"][of]), _floats(self.tensors["targets"][views])
        image_normals, normals = _normals(self.tensors["image_normals"][of]), _normals(self.tensors["normals"][views])
        visibility = self.tensors["visibility"][views].float()[:, :, None] / 255
        on_rig = (normals.abs().sum(2, keepdim=True) > 0).float()
        behind, gain = draw.background[:, :, None, None], (draw.contrast[:, None] * draw.gain)[:, :, None, None]
        offset = gain - draw.contrast[:, None, None, None]
        change = lambda x, g, o: (g * (2 * x - 1) + o).clamp(-1, 1)  # noqa: E731
        over = lambda x, b, dim: x.narrow(dim, 0, 3) + (1 - x.narrow(dim, 3, 1)) * b  # noqa: E731
        picture = change(over(image, behind, 1), gain, offset)
        truth = change(over(targets, behind[:, None], 2), gain[:, None], offset[:, None])
        filled = change(_floats(self.tensors["fill"][views]) + (1 - on_rig) * behind[:, None], gain[:, None], offset[:, None])
        background = (change(behind, gain, offset)[:, :, 0, 0] + 1) / 2
        turned = draw.mirrored[:, None, None, None]
        picture = torch.where(turned, _turned(torch.cat([picture, image_normals], 1), 3), torch.cat([picture, image_normals], 1))
        conditions = torch.cat([visibility, normals], 2)
        turned = turned[:, None]
        return Batch(
            image=picture,
            fill=torch.where(turned, filled.flip(-1), filled),
            conditions=torch.where(turned, _turned(conditions, 1), conditions),
            targets=torch.where(turned, truth.flip(-1), truth),
            masks=torch.where(turned, targets[:, :, 3:].flip(-1), targets[:, :, 3:]),
            background=background,
        )


def _turned(x: Float[Tensor, "*B C H W"], normal_x: int) -> Float[Tensor, "*B C H W"]:
    """Mirrored left to right; channel `normal_x` is the normals' x and changes sign."""
    changed = (torch.arange(x.shape[-3], device=x.device) == normal_x).float()
    return x.flip(-1) * (1 - 2 * changed)[:, None, None]


def _floats(x: Tensor) -> Tensor:
    """uint8 [..., H, W, A] to [..., A, H, W] in 0..1."""
    return x.movedim(-1, -3).float() / 255


def _normals(x: Tensor) -> Tensor:
    return x.movedim(-1, -3).float() / 127
