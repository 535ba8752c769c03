"""The small prior without the rig, for comparison: a view is told by its camera's direction alone, as in MVDream (GAF's ablation).

The networks stay the same, and so do their inputs' shapes: the direction takes the place of the normals, the same in all pixels, and
nothing is carried through the rig. What is left of the person is the picture.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.cameras import camera_position
from gafcore.diffusion.small.views import HeadPose
from gafcore.types import Camera


def direction_of(camera: Camera, pose: HeadPose) -> Float[Tensor, "3"]:
    """From the middle of the head to the camera, in the head's own axes (left, up, ahead), length 1."""
    away = (camera_position(camera) - pose.center) @ pose.axes
    return away / away.norm()


def directions_at(angles_deg: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 3"]:
    """The same from azimuth and elevation, degrees, as `Person.angles` has them."""
    azimuth, elevation = torch.deg2rad(angles_deg).unbind(-1)
    return torch.stack([elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], -1)


def pose_only(
    image: Float[Tensor, "B 6 H W"],
    fill: Float[Tensor, "B N 3 H W"],
    conditions: Float[Tensor, "B N 4 H W"],
    background: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B N 3"],
) -> tuple[Float[Tensor, "B 6 H W"], Float[Tensor, "B N 3 H W"], Float[Tensor, "B N 4 H W"]]:
    """What the networks take (`SmallPriorNetwork.forward`), with everything that came from the rig replaced by the views' directions.

    Mirrored sets need directions whose first coordinate has changed sign, as that of the normals has.
    """
    image = torch.cat([image[:, :3], torch.zeros_like(image[:, 3:])], 1)
    behind = (2 * background - 1)[:, None, :, None, None].expand_as(fill)
    planes = directions[..., None, None].expand_as(fill)
    return image, behind, torch.cat([torch.zeros_like(conditions[:, :, :1]), planes], 2)
