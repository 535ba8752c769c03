"""The second term of GAF's equation 5: what a prior says about views that no camera took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gafcore.avatars.rigged import RiggedAvatar, draw, pose_on
from gafcore.fitting.color import corrected
from gafcore.fitting.config import FitConfig
from gafcore.fitting.losses import Perceptual, image_loss
from gafcore.fitting.prior import Prior, PriorRequest
from gafcore.fitting.schedule import generator
from gafcore.rigs import Rig
from gafcore.types import Camera, Frame, RigParams


@dataclass(frozen=True)
class PriorTerm:
    """A loss, and how far its gradient gives way to that of the rest of the loss (`PriorViews.yields`)."""

    loss: Float[Tensor, ""]
    yields: float


def prior_loss(
    prior: Prior,
    avatar: RiggedAvatar,
    vertices: Float[Tensor, "1 V 3"],
    params: RigParams,
    frame: Frame,
    *,
    background: Float[Tensor, "3"],
    captured_on: tuple[float, float, float],
    color: Float[Tensor, "2 3"] | None,
    iteration: int,
    config: FitConfig,
    rig: Rig,
    perceptual: Perceptual | None,
) -> PriorTerm | None:
    """L_img between the prior's targets and renders of its views; None where the prior has nothing to say.

    Only the Gaussians follow it: pose and expression, and the camera's colours, are what the pictures say. The prior is asked where `rig`
    is, wherever the avatar is, and what it answers follows the avatar.

    Args:
        prior: Whom to ask.
        avatar: As it is now, posed for `frame`.
        vertices: Its rig at that moment, metres.
        params: Of all timesteps, as tuned so far.
        frame: The training frame of the iteration.
        background: RGB behind the head in this iteration.
        captured_on: RGB behind the head in the frame's picture.
        color: Gain and offset of the frame's camera, where fitted.
        iteration: From 1.
        config: Of the fit.
        rig: The avatar's, where the prior is asked.
        perceptual: LPIPS, where there are weights.
    """
    device, asked = vertices.device, rig.template.device
    request = PriorRequest(
        iteration=iteration,
        iterations=config.iterations,
        frame=frame,
        params=avatar.params.detach().to(asked),
        rig=rig,
        vertices=vertices[0].to(asked),
        captured_on=captured_on,
        render=_preview(avatar, vertices, background, asked),
        background=background.to(asked),
        generator=generator(config, "prior", iteration),
    )
    views = prior(request)
    if views is None or views.weight == 0:
        return None
    if views.timestep is not None and views.timestep != frame.timestep:
        moment, shared = views.timestep, RigParams.SHARED
        # As an index the number would be brought to a GPU, which waits for it.
        then = params.map(lambda name, x: x if name in shared else x.narrow(0, moment, 1))
        vertices = avatar.rig.vertices(then.detach())
    background = background if views.background is None else views.background.to(device)
    blur = {} if views.eps2d is None else {"eps2d": views.eps2d}
    view = draw(pose_on(avatar, vertices), views.cameras, background, **blur)
    targets = views.targets.detach().to(device)
    image = _averaged(corrected(view, background, None if color is None else color.detach()), targets)
    mask = None if views.mask is None else views.mask.to(device)
    if views.squared:
        squares = (image - targets).square()
        return PriorTerm(views.weight * 0.5 * (squares if mask is None else squares * mask[..., None]).mean(), views.yields)
    loss = image_loss(image, targets, config.loss, perceptual, mask)
    # In doubles, as Python's product was, and not read from the device.
    weight = views.weight if mask is None else (views.weight * mask.mean().double()).to(loss.dtype)
    return PriorTerm(weight * loss, views.yields)


def _preview(avatar: RiggedAvatar, vertices: Tensor, background: Tensor, asked: torch.device) -> Callable[..., Tensor]:
    """The avatar as it is now, for a prior to look at on the device `asked`."""

    def preview(cameras: Sequence[Camera], behind: Tensor = background) -> Float[Tensor, "C H W 3"]:
        with torch.no_grad():
            return draw(pose_on(avatar, vertices), cameras, behind).image.to(asked)

    return preview


def _averaged(image: Float[Tensor, "C H W 3"], targets: Float[Tensor, "C h w 3"]) -> Float[Tensor, "C h w 3"]:
    """The render at the size of the targets, which is smaller by a whole factor."""
    factor = image.shape[1] // max(targets.shape[1], 1)
    if factor < 1 or image.shape != (targets.shape[0], factor * targets.shape[1], factor * targets.shape[2], 3):
        raise ValueError(
            f"the prior's targets must be {list(image.shape)} for its cameras, or smaller by a whole factor, got {list(targets.shape)}"
        )
    return image if factor == 1 else avg_pool2d(image.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1).contiguous()
