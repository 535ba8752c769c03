"""From a picture and its tracked rig to what the networks take: the same for training pictures and for a capture's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from gafcore.captures.synthetic.noise import uniform
from gafcore.diffusion.small.pose import placement_of, pose_only
from gafcore.diffusion.small.views import head_crop, head_pose, view_camera
from gafcore.diffusion.small.warp import Carried, carry
from gafcore.mesh import normal_map
from gafcore.rigs.base import Rig
from gafcore.types import Camera

_RIM = 4  # pixels of a view, 2 cm
OVERSAMPLED = 2  # colours are carried from a crop so many times as large as the network's picture


@dataclass(frozen=True)
class Conditions:
    """One set: what `SmallPrior.regress` and `denoise` take, colours in -1..1, the cameras of the views, the coverage of `image`, and 1
    where a view shows no part of the rig beyond the edge of the whole picture, of which `image` is a crop, and is not beside one."""

    image: Float[Tensor, "1 6 H W"]
    fill: Float[Tensor, "1 N 3 H W"]
    conditions: Float[Tensor, "1 N 4 H W"]
    cameras: tuple[Camera, ...]
    coverage: Float[Tensor, "H W"]
    within: Float[Tensor, "N H W"]


@torch.no_grad()
def prepare(
    rgba: Float[Tensor, "h w 4"],
    camera: Camera,
    rig: Rig,
    vertices: Float[Tensor, "V 3"],
    targets: Sequence[Camera],
    background: Float[Tensor, "3"],
    *,
    condition: str = "rig",
) -> Conditions:
    """Conditions for views of a head, made where `rgba`, `rig` and `vertices` are. Cameras are on the CPU: crops are chosen there.

    Args:
        rgba: A picture: colour times coverage by the head, and coverage.
        camera: That took it.
        rig: The head's.
        vertices: As tracked in the picture, metres.
        targets: Square cameras of the network's size (`random_views`).
        background: RGB behind the head, in picture and views; anywhere.
        condition: The networks' `NetworkConfig.condition`.
    """
    size, pose, background = targets[0].width, head_pose(rig, vertices), background.to(rgba)
    crop = head_crop(camera, pose, OVERSAMPLED * size)
    near = crop.cut(rgba, rgba.new_zeros(4))
    carried = carry(near, crop.camera(camera), targets, vertices, rig.faces, rig=rig)
    small = replace(crop, size=size).camera(camera)
    normals = normal_map(vertices, rig.faces, small)[0].permute(2, 0, 1)
    pooled = avg_pool2d(near.permute(2, 0, 1)[None], OVERSAMPLED)[0]
    picture = pooled[:3] + (1 - pooled[3:]) * background[:, None, None]
    fill = carried.fill + (1 - carried.mask[..., None]) * background
    conditions = torch.cat([carried.visibility[..., None], carried.normals], -1)
    image = torch.cat([2 * picture - 1, normals])[None]
    given = (image, (2 * fill - 1).permute(0, 3, 1, 2)[None], conditions.permute(0, 3, 1, 2)[None])
    if condition == "pose":
        placements = torch.stack([placement_of(target, pose) for target in targets]).to(rgba)
        given = pose_only(*given, background[None], placements[None])
    return Conditions(*given, cameras=tuple(targets), coverage=pooled[3], within=_within(carried, camera))


def _within(carried: Carried, camera: Camera) -> Float[Tensor, "N H W"]:
    """0 on the rig beyond the picture's edge, and beside it, where its Gaussians reach over its rim."""
    beyond = carried.mask * (1 - _in_picture(carried.points, camera))
    beside = max_pool2d(beyond, 2 * _RIM + 1, 1, _RIM) * (1 - carried.mask)
    return 1 - beyond - beside


def _in_picture(points: Float[Tensor, "N H W 3"], camera: Camera) -> Float[Tensor, "N H W"]:
    """1 for points that the picture would show, were nothing before them."""
    camera = camera.to(points.device)
    x, y, w = ((points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]) @ camera.K.T).unbind(-1)
    return ((w > 0) & (x >= 0) & (x < camera.width * w) & (y >= 0) & (y < camera.height * w)).to(points.dtype)


def input_camera(camera: Camera, rig: Rig, vertices: Float[Tensor, "V 3"], size: int) -> Camera:
    """The view that shows what the input picture shows: the camera of the crop that `prepare` makes of it."""
    crop = head_crop(camera, head_pose(rig, vertices), OVERSAMPLED * size)
    return replace(crop, size=size).camera(camera)


def random_views(rig: Rig, vertices: Float[Tensor, "V 3"], n: int, size: int, rng: torch.Generator) -> list[Camera]:
    """GAF's viewpoints about the head: azimuth within 90 degrees (one in each n-th), elevation within 30, 1.0 to 1.2 m away."""
    pose = head_pose(rig, vertices)
    cameras = []
    for k in range(n):
        azimuth, elevation = -90 + 180 * (k + uniform(rng, 0, 1)) / n, uniform(rng, -30, 30)
        cameras.append(view_camera(pose, math.radians(azimuth), math.radians(elevation), uniform(rng, 1.0, 1.2), size))
    return cameras
