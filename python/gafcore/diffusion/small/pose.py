"""The small prior without normals and warp, for comparison: a view is told by where its camera stands, as in MVDream (GAF's ablation).

The networks stay the same, and so do their inputs' shapes: the camera's place takes the place of the normals, and its roll that of
visibility, the same in all pixels. The rig still says where the head is and how it is turned; of its shape nothing is left.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.cameras import camera_position
from gafcore.diffusion.small.views import FAR_M, HeadPose
from gafcore.types import Camera

_ROLL_UNIT_RAD = 0.1  # views of training are rolled by 0.03 (standard deviation), which would be faint beside the other numbers


def placement_of(camera: Camera, pose: HeadPose) -> Float[Tensor, "4"]:
    """Where a camera stands about a head.

    Returns:
        From the middle of the head to the camera, in the head's own axes (left, up, ahead), in units of 1.1 m, so about as long as a
        normal; and the picture's roll from the head's upright, in units of 0.1 rad, positive where the head leans to its right.
    """
    away = (camera_position(camera) - pose.center) @ pose.axes / FAR_M
    right_up, down_up = camera.viewmat[:2, :3] @ pose.axes[:, 1]
    return torch.cat([away, torch.atan2(-right_up, -down_up)[None] / _ROLL_UNIT_RAD])


def mirrored(placements: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4"]:
    """Of the cameras that see a head's mirror image as these see the head."""
    # Not by a product with constants: they would come from the host, which a CUDA graph refuses.
    return torch.cat([-placements[..., :1], placements[..., 1:3], -placements[..., 3:]], -1)


def pose_only(
    image: Float[Tensor, "B 6 H W"],
    fill: Float[Tensor, "B N 3 H W"],
    conditions: Float[Tensor, "B N 4 H W"],
    background: Float[Tensor, "B 3"],
    placements: Float[Tensor, "B N 4"],
) -> tuple[Float[Tensor, "B 6 H W"], Float[Tensor, "B N 3 H W"], Float[Tensor, "B N 4 H W"]]:
    """What the networks take (`SmallPriorNetwork.forward`), with normals, visibility and warp replaced by the views' placements.

    Where training leaves out the picture, it leaves out the roll too, which has the channel of visibility.
    """
    image = torch.cat([image[:, :3], torch.zeros_like(image[:, 3:])], 1)
    behind = (2 * background - 1)[:, None, :, None, None].expand_as(fill)
    return image, behind, placements.roll(1, -1)[..., None, None].expand_as(conditions).contiguous()
