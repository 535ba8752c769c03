"""One iteration: pose, render, compare, differentiate, move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.avatars.density import accumulate
from gafcore.avatars.frames import describe
from gafcore.avatars.rigged import RiggedAvatar, draw, pose_on
from gafcore.fitting.color import corrected
from gafcore.fitting.config import FitConfig
from gafcore.fitting.inputs import Inputs
from gafcore.fitting.losses import Perceptual, image_loss, position_penalty, scale_penalty
from gafcore.fitting.prior import Prior
from gafcore.fitting.prior_term import ask, prior_loss
from gafcore.fitting.readings import DivergedError, StepResult, check_loss
from gafcore.fitting.schedule import sh_degree_at
from gafcore.fitting.state import GAUSSIAN_TENSORS, FitState, current_avatar, rig_params, set_rates
from gafcore.fitting.yielding import backward_yielding
from gafcore.rigs import Rig
from gafcore.types import Frame, RigParams


@dataclass(frozen=True)
class Terms:
    """What the loss of a fit is made of beside the training picture."""

    perceptual: Perceptual | None = None
    prior: Prior | None = None


@dataclass(frozen=True)
class Scene:
    """What all iterations of a fit share.

    Attributes:
        rig: With the person's identity baked in (`bake_shape`), on the fit's device.
        shared: The rig parameters that `rig` still takes from the person, there too.
        captured_on: RGB behind the head in the pictures.
        config: Of the fit.
        terms: Of the loss.
        rig_of_prior: `rig` where the prior is asked, if that is elsewhere.
    """

    rig: Rig
    shared: RigParams
    captured_on: tuple[float, float, float]
    config: FitConfig
    terms: Terms
    rig_of_prior: Rig | None = None


@dataclass
class StageTimes:
    """Seconds the host spent in each stage so far. On a GPU that is what launching took: nothing waits for the device to tell."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Outcome:
    """An iteration between its two halves: what was drawn, and how far it is from the picture.

    The gradient of `yielding`, a further loss, gives way to `loss`'s, as far as `yields` says (`yielding.py`).
    """

    avatar: RiggedAvatar
    vertices: Float[Tensor, "1 V 3"]
    color: Float[Tensor, "2 3"] | None
    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]
    means2d: Float[Tensor, "1 N 2"]
    visible: Bool[Tensor, "1 N"]
    n_pairs: tuple[Tensor, ...]  # of splats and tiles, int64: of the frame, and of a prior's views
    yielding: Float[Tensor, ""] | None = None
    yields: float = 0.0

    @property
    def total(self) -> Float[Tensor, ""]:
        return self.loss if self.yielding is None else self.loss + self.yielding


def bake_shape(rig: Rig, params: RigParams) -> tuple[Rig, RigParams]:
    """The same mesh in every pose without the cost of identity, which is frozen while fitting.

    Joints are linear in the vertices, so they stay where they were.
    """
    template = torch.addmv(rig.template.flatten(), rig.shape_basis.flatten(1).T, params.shape).view(-1, 3)
    if params.static_offset is not None:
        template = template + params.static_offset
    baked = replace(rig, template=template, shape_basis=rig.shape_basis[:0])
    return baked, replace(params, shape=params.shape[:0], static_offset=None)


def take_step(state: FitState, scene: Scene, frame: Frame, inputs: Inputs, times: StageTimes, *, look: bool = True) -> StepResult:
    """Move `state` by one training frame: `frame`, as it stands in `inputs`.

    With `look`, the loss is read before anything moves, which on a GPU waits for it.

    Raises:
        DivergedError: With `look`: the loss is not finite. That step changed nothing.
        InputError: The prior needs something of the frame that it lacks.
    """
    iteration = state.iteration + 1
    set_rates(state, scene.config, iteration)
    outcome = compare(state, scene, inputs, sh_degree_at(scene.config, iteration), times)
    if scene.terms.prior is not None:
        with times.stage("prior"):
            outcome = _ask_prior(state, scene, frame, inputs, outcome)
    if look:
        check_loss(iteration, describe(frame), float(outcome.total.detach()))
    move(state, outcome, inputs, times)
    state.iteration = iteration
    return StepResult(figures(outcome))


def compare(state: FitState, scene: Scene, inputs: Inputs, sh_degree: int, times: StageTimes) -> Outcome:
    """The first half of an iteration: the avatar as `inputs` should show it, and the loss. Asks nothing of the host."""
    camera, row, background, weights = inputs.camera, inputs.row, inputs.background, scene.config.loss
    with times.stage("picture"):
        target = inputs.target()
    with times.stage("rig"):
        params = rig_params(state, scene.shared).map(lambda name, x: x if name in RigParams.SHARED else x.index_select(0, row))
        vertices = scene.rig.vertices(params)
    avatar = current_avatar(state, scene.rig, params, sh_degree)
    with times.stage("bind"):
        gaussians = pose_on(avatar, vertices)
    with times.stage("render"):
        view = draw(gaussians, [camera], background)
        view.meta["means2d"].retain_grad()
    visible = is_visible(view.meta["radii"])
    with times.stage("loss"):
        color = _color_row(state, row)
        image = corrected(view, background, color)
        loss = image_loss(image, target[None], weights, scene.terms.perceptual)
        position = position_penalty(avatar.means, visible[0], weights.position_limit)
        scale = scale_penalty(avatar.log_scales, visible[0], weights.scale_limit)
        loss = loss + (weights.position * position + weights.scale * scale)
        # Rows first: a mean of all numbers at once is split among threads, and its last bits with it.
        squared_error = (image.detach()[0] - target).square().mean((1, 2)).mean()
    return Outcome(avatar, vertices, color, loss, squared_error, view.meta["means2d"], visible, (view.meta["n_pairs"],))


def with_views(state: FitState, scene: Scene, inputs: Inputs, outcome: Outcome) -> Outcome:
    """With what a prior says in `inputs`, if anything. Asks nothing of the host."""
    if inputs.views is None:
        return outcome
    term = prior_loss(
        inputs.views,
        outcome.avatar,
        outcome.vertices.detach(),
        rig_params(state, scene.shared),
        background=inputs.background,
        color=outcome.color,
        weights=scene.config.loss,
        perceptual=scene.terms.perceptual,
    )
    outcome = replace(outcome, n_pairs=(*outcome.n_pairs, term.n_pairs))
    if term.yields == 0:
        return replace(outcome, loss=outcome.loss + term.loss)
    return replace(outcome, yielding=term.loss, yields=term.yields)


def move(state: FitState, outcome: Outcome, inputs: Inputs, times: StageTimes) -> None:
    """The second half: gradients, density statistics and the optimiser's step, all into the memory that `state` has."""
    with times.stage("backward"):
        outcome.loss.backward()
        if outcome.yielding is not None:
            # Both passes share `current_avatar`'s views and concatenation, which save no tensors that the first pass would have freed.
            gaussians = [x for name, x in state.adam.tensors.items() if name in GAUSSIAN_TENSORS]
            backward_yielding(outcome.yielding, gaussians, outcome.yields)
    with times.stage("density"):
        assert outcome.means2d.grad is not None
        stats = accumulate(state.stats, outcome.means2d.grad, outcome.visible, inputs.width, inputs.height)
        state.stats.grad_sum.copy_(stats.grad_sum)
        state.stats.views.copy_(stats.views)
    with times.stage("optimiser"):
        state.adam.step()


def figures(outcome: Outcome) -> Float[Tensor, "2"]:
    """Loss and squared error: what a `StepResult` reads."""
    return torch.stack([outcome.total.detach(), outcome.squared_error])


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


def _color_row(state: FitState, row: Tensor) -> Float[Tensor, "2 3"] | None:
    rows = state.tensors.get("color")
    if rows is None:
        return None
    return rows.index_select(0, row)[0] if rows.shape[0] > 1 else rows[0]


def _ask_prior(state: FitState, scene: Scene, frame: Frame, inputs: Inputs, outcome: Outcome) -> Outcome:
    assert scene.terms.prior is not None
    views = ask(
        scene.terms.prior,
        outcome.avatar,
        outcome.vertices.detach(),
        frame,
        background=inputs.background,
        captured_on=scene.captured_on,
        iteration=state.iteration + 1,
        config=scene.config,
        rig=scene.rig if scene.rig_of_prior is None else scene.rig_of_prior,
    )
    return outcome if views is None else with_views(state, scene, replace(inputs, views=views), outcome)
