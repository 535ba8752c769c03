"""One iteration: pose, render, compare, differentiate, move."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gafcore.avatars.density import accumulate
from gafcore.avatars.frames import describe
from gafcore.avatars.rigged import RiggedAvatar, draw, pose_on
from gafcore.errors import GafError
from gafcore.fitting.color import corrected
from gafcore.fitting.config import FitConfig
from gafcore.fitting.data import target_image
from gafcore.fitting.losses import Perceptual, image_loss, position_penalty, scale_penalty
from gafcore.fitting.prior import Prior, PriorRequest
from gafcore.fitting.schedule import background_at, generator, sh_degree_at
from gafcore.fitting.state import FitState, current_avatar, rig_params, set_rates
from gafcore.rigs import Rig
from gafcore.types import Camera, Frame, RigParams


class DivergedError(GafError):
    """The loss became NaN or infinite. That step changed nothing."""


@dataclass(frozen=True)
class Terms:
    """What the loss of a fit is made of beside the training picture."""

    perceptual: Perceptual | None = None
    prior: Prior | None = None


@dataclass
class StageTimes:
    """Seconds spent in each stage so far."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class StepResult:
    """What an iteration reports; `psnr` in dB, on the full training picture."""

    loss: float
    psnr: float


def bake_shape(rig: Rig, params: RigParams) -> tuple[Rig, RigParams]:
    """The same mesh in every pose without the cost of identity, which is frozen while fitting.

    Joints are linear in the vertices, so they stay where they were.
    """
    template = torch.addmv(rig.template.flatten(), rig.shape_basis.flatten(1).T, params.shape).view(-1, 3)
    if params.static_offset is not None:
        template = template + params.static_offset
    baked = replace(rig, template=template, shape_basis=rig.shape_basis[:0])
    return baked, replace(params, shape=params.shape[:0], static_offset=None)


def take_step(
    state: FitState,
    rig: Rig,
    shared: RigParams,
    frame: Frame,
    captured_on: tuple[float, float, float],
    config: FitConfig,
    terms: Terms,
    times: StageTimes,
) -> StepResult:
    """Move `state` by one training frame. `rig` and `shared` are what `bake_shape` returned.

    Raises:
        DivergedError: The loss is not finite.
        InputError: The frame's picture or mask does not fit its camera.
    """
    iteration = state.iteration + 1
    background = background_at(config, iteration)
    set_rates(state, config, iteration)
    with times.stage("picture"):
        target = target_image(frame, captured_on, background)
    with times.stage("rig"):
        params = rig_params(state, shared)[frame.timestep]
        vertices = rig.vertices(params)
    avatar = current_avatar(state, rig, params, sh_degree_at(config, iteration))
    with times.stage("bind"):
        gaussians = pose_on(avatar, vertices)
    with times.stage("render"):
        view = draw(gaussians, [frame.camera], background)
        view.meta["means2d"].retain_grad()
    visible = is_visible(view.meta["radii"])
    with times.stage("loss"):
        image = corrected(view, background, _color_row(state, frame))
        loss = image_loss(image, target[None], config.loss, terms.perceptual) + _penalties(avatar, visible[0], config)
    if terms.prior is not None:
        with times.stage("prior"):
            draws = generator(config, "prior", iteration)
            posed = vertices.detach()
            request = PriorRequest(
                iteration=iteration,
                iterations=config.iterations,
                frame=frame,
                params=params.detach(),
                rig=rig,
                vertices=posed[0],
                captured_on=captured_on,
                render=_preview(avatar, posed, background),
                background=background,
                generator=draws,
            )
            loss = loss + _prior_loss(terms, request, avatar, rig_params(state, shared), _color_row(state, frame), config)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergedError(f"iteration {iteration}: the loss is {value} on the {describe(frame)}; try smaller learning rates")
    with times.stage("backward"):
        loss.backward()
    with times.stage("density"):
        state.stats = accumulate(state.stats, view.meta["means2d"].grad, visible, frame.camera.width, frame.camera.height)
    with times.stage("optimiser"):
        state.adam.step()
    state.iteration = iteration
    return StepResult(value, psnr(image.detach()[0], target))


def check_finite(state: FitState) -> None:
    """The rasterizer skips Gaussians that are not finite, so the loss alone does not show them all.

    Raises:
        DivergedError: A tensor holds NaN or infinity; the message names it.
    """
    for name, x in state.tensors.items():
        if not bool(x.isfinite().all()):
            raise DivergedError(f"after iteration {state.iteration}: {name} holds NaN or infinity; try smaller learning rates")


def is_visible(radii: Tensor) -> Bool[Tensor, "C N"]:
    """Gaussians that touch the picture, from the rasterizer's radii ([C, N], or [C, N, 2] for both axes)."""
    return (radii > 0).all(-1) if radii.dim() == 3 else radii > 0


def psnr(image: Float[Tensor, "H W 3"], target: Float[Tensor, "H W 3"]) -> float:
    """Peak signal-to-noise ratio, dB, for values in 0..1; at most 120."""
    return -10 * math.log10(max(float((image - target).square().mean()), 1e-12))


def _color_row(state: FitState, frame: Frame) -> Float[Tensor, "2 3"] | None:
    rows = state.tensors.get("color")
    return None if rows is None else rows[frame.timestep if rows.shape[0] > 1 else 0]


def _penalties(avatar: RiggedAvatar, visible: Bool[Tensor, "N"], config: FitConfig) -> Float[Tensor, ""]:
    weights = config.loss
    position = position_penalty(avatar.means, visible, weights.position_limit)
    scale = scale_penalty(avatar.log_scales, visible, weights.scale_limit)
    return weights.position * position + weights.scale * scale


def _preview(avatar: RiggedAvatar, vertices: Tensor, background: Tensor) -> Callable[..., Tensor]:
    """The avatar as it is now, for a prior to look at."""

    def preview(cameras: Sequence[Camera], behind: Tensor = background) -> Float[Tensor, "C H W 3"]:
        with torch.no_grad():
            return draw(pose_on(avatar, vertices), cameras, behind).image

    return preview


def _prior_loss(
    terms: Terms,
    request: PriorRequest,
    avatar: RiggedAvatar,
    params: RigParams,
    color: Float[Tensor, "2 3"] | None,
    config: FitConfig,
) -> Tensor | float:
    """L_img between the prior's targets and renders of its views (the second term of GAF's equation 5).

    Only the Gaussians follow it: pose and expression, and the camera's colours, are what the pictures say.
    """
    assert terms.prior is not None
    views = terms.prior(request)
    if views is None:
        return 0.0
    vertices = request.vertices[None]
    if views.timestep is not None and views.timestep != request.frame.timestep:
        vertices = request.rig.vertices(params[views.timestep].detach())
    background = request.background if views.background is None else views.background
    view = draw(pose_on(avatar, vertices), views.cameras, background, **({} if views.eps2d is None else {"eps2d": views.eps2d}))
    image = _averaged(corrected(view, background, None if color is None else color.detach()), views.targets)
    targets = views.targets.detach()
    if views.squared:
        return views.weight * 0.5 * (image - targets).square().mean()
    share = 1.0 if views.mask is None else float(views.mask.mean())
    return views.weight * share * image_loss(image, targets, config.loss, terms.perceptual, views.mask)


def _averaged(image: Float[Tensor, "C H W 3"], targets: Float[Tensor, "C h w 3"]) -> Float[Tensor, "C h w 3"]:
    """The render at the size of the targets, which is smaller by a whole factor."""
    factor = image.shape[1] // max(targets.shape[1], 1)
    if factor < 1 or image.shape != (targets.shape[0], factor * targets.shape[1], factor * targets.shape[2], 3):
        raise ValueError(
            f"the prior's targets must be {list(image.shape)} for its cameras, or smaller by a whole factor, got {list(targets.shape)}"
        )
    return image if factor == 1 else avg_pool2d(image.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1).contiguous()
