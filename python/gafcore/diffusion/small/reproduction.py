"""How well a prior draws the picture that it was given: what it does not know of a person, a camera or a rig shows there already.

Of a capture, no other view is known. At the input's own camera the right answer is, and it lies before the network: a person as those of
its training comes back nearly unchanged, one that it was not made for less so, and so does one whose tracked rig does not fit the picture.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.small.conditions import input_camera, prepare
from gafcore.diffusion.small.prior import SmallPrior
from gafcore.diffusion.small.views import FAR_M, head_pose, view_camera
from gafcore.rigs.base import Rig
from gafcore.types import Camera

_ON_THE_HEAD = 0.5  # coverage; what the mask leaves out (shoulders, in some captures) is no error of the prior's


@torch.no_grad()
def reproduction_error(
    prior: SmallPrior,
    rgba: Float[Tensor, "h w 4"],
    camera: Camera,
    rig: Rig,
    vertices: Float[Tensor, "V 3"],
    background: Float[Tensor, "3"],
) -> float | None:
    """Mean squared error (colours 0..1) of the regression's view at the input's own camera, on the head.

    The set's other views are asked from all around, as always. Nothing is random.

    Args:
        prior: Whose regression; where `rgba`, `rig` and `vertices` are.
        rgba: A picture: colour times coverage by the head, and coverage.
        camera: That took it.
        rig: The head's.
        vertices: As tracked in the picture, metres.
        background: RGB behind the head, in picture and views.

    Returns:
        The error; None where the picture shows no head.
    """
    own = input_camera(camera, rig, vertices, prior.size)
    given = prepare(rgba, camera, rig, vertices, [own, *_around(prior, rig, vertices)], background, condition=prior.condition)
    head = given.coverage > _ON_THE_HEAD
    if not bool(head.any()):
        return None
    made = prior.regress(given.image, given.fill, given.conditions)[0, 0]
    return float(((made - given.image[0, :3]) / 2).square().mean(0)[head].mean())


def _around(prior: SmallPrior, rig: Rig, vertices: Float[Tensor, "V 3"]) -> list[Camera]:
    """The middles of equal parts of the half circle, level with the head."""
    pose, n = head_pose(rig, vertices), prior.n_views - 1
    return [view_camera(pose, math.pi * ((k + 0.5) / n - 0.5), 0.0, FAR_M, prior.size) for k in range(n)]
