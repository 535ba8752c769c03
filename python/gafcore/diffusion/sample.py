"""What a multi-view prior learns from: one input picture and N views of the same head at the same moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ViewSample:
    """One set of views, channels last as everywhere in gafcore; a batch has one more leading dimension in every tensor.

    Attributes:
        image: The input picture on its background, sRGB 0..1.
        image_normals: Normals of the rig in the input camera, as `normals`; zeros where unknown.
        targets: What the target cameras saw, on the same background.
        masks: Head and hair in the targets, 0..1.
        normals: `gafcore.mesh.normal_map(..., space="camera")`: unit length, x right, y down, z forward; 0 where there is no rig.
        image_viewmat: World-to-camera matrix of the input camera.
        image_K: Its intrinsics, pixels.
        viewmats: World-to-camera matrices of the targets.
        Ks: Their intrinsics, pixels.
        warp: The input's colours carried to the target cameras through the rig, holes filled, on the background; None where not made.
        visibility: 1 where `warp` holds a colour that the input saw, 0 where it was filled.
        timestep: Of the capture.
        key: Unique in a data set: "identity/timestep/input camera".
    """

    image: Float[Tensor, "*B H W 3"]
    image_normals: Float[Tensor, "*B H W 3"]
    targets: Float[Tensor, "*B N H W 3"]
    masks: Float[Tensor, "*B N H W"]
    normals: Float[Tensor, "*B N H W 3"]
    image_viewmat: Float[Tensor, "*B 4 4"]
    image_K: Float[Tensor, "*B 3 3"]
    viewmats: Float[Tensor, "*B N 4 4"]
    Ks: Float[Tensor, "*B N 3 3"]
    warp: Float[Tensor, "*B N H W 3"] | None = None
    visibility: Float[Tensor, "*B N H W"] | None = None
    timestep: int | tuple[int, ...] = 0
    key: str | tuple[str, ...] = ""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of the tensors that are present."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                yield f.name, value


class SampleSet(Protocol):
    """A data set: sample `i` is a function of `i` alone, so that a resumed training sees what the interrupted one would have seen."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ViewSample: ...


def collate(samples: Sequence[ViewSample]) -> ViewSample:
    """Samples of one size as a batch.

    Raises:
        ValueError: No sample, or shapes or present fields differ; the message names the keys.
    """
    if not samples:
        raise ValueError("collate needs at least one sample, got none")
    parts = [dict(sample.tensors()) for sample in samples]
    for sample, part in zip(samples[1:], parts[1:], strict=True):
        shapes = {k: tuple(v.shape) for k, v in part.items()}
        first = {k: tuple(v.shape) for k, v in parts[0].items()}
        if shapes != first:
            differs = sorted(k for k in shapes.keys() | first.keys() if shapes.get(k) != first.get(k))
            given = ", ".join(f"{k}: {first.get(k)} and {shapes.get(k)}" for k in differs)
            raise ValueError(f"samples {samples[0].key!r} and {sample.key!r} do not fit in one batch: {given}")
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    timesteps = tuple(int(s.timestep) for s in samples)  # type: ignore[arg-type]
    return ViewSample(**stacked, timestep=timesteps, key=tuple(str(s.key) for s in samples))
