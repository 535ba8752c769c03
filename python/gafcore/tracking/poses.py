"""Head poses as rotations and shifts, which compose more simply than a rig's parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.types import RigParams


@dataclass(frozen=True)
class Poses:
    """A head point X, metres, is at `turn[t] X + shift[t]` in camera space (looking along -z, y up). float64."""

    turn: Float[Tensor, "T 3 3"]
    shift: Float[Tensor, "T 3"]

    def __len__(self) -> int:
        return len(self.shift)

    def __getitem__(self, frames: list[int] | slice) -> Poses:
        return Poses(self.turn[frames], self.shift[frames])

    def with_frames(self, frames: list[int], other: Poses) -> Poses:
        """A copy in which `frames` are `other`'s."""
        index = torch.tensor(frames)
        return Poses(self.turn.index_copy(0, index, other.turn), self.shift.index_copy(0, index, other.shift))

    def place(self, points: Float[Tensor, "T M 3"]) -> Float[Tensor, "T M 3"]:
        """Head points of each frame in camera space."""
        return points @ self.turn.mT + self.shift[:, None]

    def moved(self, step: Float[Tensor, "T 6"], centre: Float[Tensor, "T 3"]) -> Poses:
        """Turned about `centre` by step[:, :3] (axis-angle), then shifted by step[:, 3:], in camera space."""
        rotation = axis_angle_to_matrix(step[:, :3])
        return Poses(rotation @ self.turn, turned(rotation, self.shift - centre) + centre + step[:, 3:])


def turned(matrix: Float[Tensor, "*B R C"], vector: Float[Tensor, "*B C"]) -> Float[Tensor, "*B R"]:
    return (matrix @ vector[..., None])[..., 0]


def poses_of(rig: Rig, params: RigParams) -> Poses:
    """How `params` move what follows the root joint."""
    turn, root = axis_angle_to_matrix(params.rotation.double()), rig.rest_joints(params)[:, 0].double()
    return Poses(turn, root + params.translation.double() - turned(turn, root))


def rotation_and_translation(
    rig: Rig, params: RigParams, poses: Poses, which: Bool[Tensor, "T"]
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3"]]:
    """The parameters under which `poses_of` gives `poses` at the frames `which`; everything else as in `params`."""
    root = rig.rest_joints(params)[which, 0].double()
    rotation, translation = params.rotation.double().clone(), params.translation.double().clone()
    rotation[which] = torch.from_numpy(Rotation.from_matrix(poses.turn.numpy()).as_rotvec())
    translation[which] = poses.shift - root + turned(poses.turn, root)
    return rotation, translation
