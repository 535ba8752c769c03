"""The data that flows between stages: frozen dataclasses of tensors, nothing else.

Conventions (docs/dataflow.md): metres, radians, pixels with centres at +0.5; cameras are OpenCV (x right, y down, z forward);
heads are y up and look along +z; quaternions are wxyz; images are float [H, W, 3] in 0..1, sRGB as captured; masks are float [H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from gafcore.rigs.base import Rig


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. `viewmat` is world-to-camera, `K` holds pixels; the principal point may be anywhere."""

    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    width: int
    height: int

    def to(self, device: torch.device | str) -> Camera:
        return replace(self, viewmat=self.viewmat.to(device), K=self.K.to(device))


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture coordinates. `uv_faces` indexes `uvs` as `faces` indexes `vertices`."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uvs: Float[Tensor, "Vt 2"] | None = None
    uv_faces: Int[Tensor, "F 3"] | None = None


@dataclass(frozen=True)
class RigParams:
    """Pose and shape of a rig over B timesteps, under FLAME's names. Rotations are axis-angle, radians; translation is metres.

    `shape` and `static_offset` belong to the person and are shared by all timesteps.
    """

    shape: Float[Tensor, "S"]
    expr: Float[Tensor, "B E"]
    rotation: Float[Tensor, "B 3"]
    neck_pose: Float[Tensor, "B 3"]
    jaw_pose: Float[Tensor, "B 3"]
    eyes_pose: Float[Tensor, "B 6"]
    translation: Float[Tensor, "B 3"]
    static_offset: Float[Tensor, "V 3"] | None = None

    SHARED = ("shape", "static_offset")

    def __len__(self) -> int:
        return self.expr.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> RigParams:
        """The chosen timesteps, still batched: an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        return self.map(lambda name, x: x if name in self.SHARED else x[index])

    def map(self, fn: Callable[[str, Tensor], Tensor]) -> RigParams:
        """A copy with `fn(name, tensor)` in place of every tensor that is present."""
        return replace(self, **{k: fn(k, v) for k, v in self.items() if v is not None})

    def items(self) -> Iterator[tuple[str, Tensor | None]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self))

    def to(self, device: torch.device | str) -> RigParams:
        return self.map(lambda _, x: x.to(device))

    def detach(self) -> RigParams:
        return self.map(lambda _, x: x.detach())


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Points fixed on a mesh: a triangle and barycentric coordinates each. `indices` are their numbers in the named landmark set."""

    faces: Int[Tensor, "L"]
    barycentrics: Float[Tensor, "L 3"]
    indices: Int[Tensor, "L"]


@dataclass(frozen=True)
class Gaussians:
    """World-space splats, ready for `gafcore.rasterization`. Leading batch dimensions allowed; `scales` are standard deviations, metres."""

    means: Float[Tensor, "*B N 3"]
    quats: Float[Tensor, "*B N 4"]
    scales: Float[Tensor, "*B N 3"]
    opacities: Float[Tensor, "*B N"]
    colors: Float[Tensor, "*B N K 3"] | Float[Tensor, "*B N 3"]
    sh_degree: int | None = 0


@dataclass(frozen=True)
class Frame:
    """One picture of a capture. Pixels are decoded when `image()` or `mask()` is called, not before."""

    camera: Camera
    timestep: int
    camera_index: int
    image: Callable[[], Float[Tensor, "H W 3"]]
    mask: Callable[[], Float[Tensor, "H W"]] | None = None
    camera_id: str = ""
    timestep_id: str = ""


@dataclass(frozen=True)
class Capture:
    """What fitting reads: frames, the rig and its parameters over time, and which frames belong to which split.

    `params` has one row a timestep; `frames[i].timestep` indexes it. `splits` maps a name ("train", "novel_view", "novel_expression",
    "test", ...) to frame numbers; a frame of "train" is in no other split.
    """

    frames: tuple[Frame, ...]
    rig: Rig
    params: RigParams
    splits: dict[str, tuple[int, ...]]
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    info: dict[str, object] = field(default_factory=dict)
