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
from gafcore.fitting.config import FitConfig, LossWeights
from gafcore.fitting.losses import Perceptual, image_loss
from gafcore.fitting.prior import Prior, PriorRequest
from gafcore.fitting.schedule import generator
from gafcore.fitting.view_inputs import ViewInputs, view_inputs
from gafcore.rigs import Rig
from gafcore.types import Camera, Frame, RigParams


@dataclass(frozen=True)
class PriorTerm:
    """A loss, how far its gradient gives way to that of the rest of the loss (`PriorViews.yields`), and pairs of splats and tiles drawn."""

    loss: Float[Tensor, ""]
    yields: float
    n_pairs: Tensor


def ask(
    prior: Prior,
    avatar: RiggedAvatar,
    vertices: Float[Tensor, "1 V 3"],
    frame: Frame,
    *,
    background: Float[Tensor, "3"],
    captured_on: tuple[float, float, float],
    iteration: int,
    config: FitConfig,
    rig: Rig,
) -> ViewInputs | None:
    """What the prior says at an iteration; None where it has nothing to say. It is asked where `rig` is, and its answer follows the avatar.

    Args:
        prior: Whom to ask.
        avatar: As it is now, posed for `frame`.
        vertices: Its rig at that moment, metres.
        frame: The training frame of the iteration.
        background: RGB behind the head in this iteration.
        captured_on: RGB behind the head in the frame's picture.
        iteration: From 1.
        config: Of the fit.
        rig: The avatar's, where the prior is asked.
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
    return view_inputs(prior(request), device)


def prior_loss(
    views: ViewInputs,
    avatar: RiggedAvatar,
    vertices: Float[Tensor, "1 V 3"],
    params: RigParams,
    *,
    background: Float[Tensor, "3"],
    color: Float[Tensor, "2 3"] | None,
    weights: LossWeights,
    perceptual: Perceptual | None,
) -> PriorTerm:
    """L_img between the prior's targets and renders of its views. Asks nothing of the host.

    Only the Gaussians follow it: pose and expression, and the camera's colours, are what the pictures say.

    Args:
        views: What the prior said.
        avatar: As it is now.
        vertices: Its rig at the moment of the iteration's frame, metres.
        params: Of all timesteps, as tuned so far.
        background: RGB behind the head in this iteration.
        color: Gain and offset of the frame's camera, where fitted.
        weights: Of L_img.
        perceptual: LPIPS, where there are weights.
    """
    if (row := views.row) is not None:
        then = params.map(lambda name, x: x if name in RigParams.SHARED else x.index_select(0, row))
        vertices = avatar.rig.vertices(then.detach())
    background = background if views.background is None else views.background
    blur = {} if views.eps2d is None else {"eps2d": views.eps2d}
    view = draw(pose_on(avatar, vertices), views.cameras, background, **blur)
    image = _averaged(corrected(view, background, None if color is None else color.detach()), views.targets)
    if views.squared:
        squares = (image - views.targets).square()
        loss, weight = (squares if views.mask is None else squares * views.mask[..., None]).mean(), 0.5 * views.weight
    else:
        loss = image_loss(image, views.targets, weights, perceptual, views.mask)
        weight = views.weight if views.mask is None else views.weight * views.mask.mean().double()
    return PriorTerm(weight.to(loss.dtype) * loss, views.yields, view.meta["n_pairs"])


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
