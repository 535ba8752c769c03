"""The rig through the clip: identity and focal length from key frames, then every frame with these frozen.

Forty even frames tell as much about the shared unknowns as all of them; with these frozen a frame knows only its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.tracking.config import SolverConfig
from gafcore.tracking.detections import Detections
from gafcore.tracking.least_squares import Minimum, Problem, minimise
from gafcore.tracking.points import place, project
from gafcore.tracking.setup import EXACT, Setup, build, prior_mean, start_parameters
from gafcore.tracking.threads import one_thread
from gafcore.tracking.uncertainty import focal_sigma
from gafcore.types import RigParams


@dataclass(frozen=True)
class Solution:
    """The rig's parameters in camera space: the camera at the origin, looking along -z, y up."""

    params: RigParams
    focal_px: float
    focal_sigma_px: float | None  # None where the focal length was given
    errors_px: Float[Tensor, "T L"]  # distance of each landmark of the rig from its detection; NaN where not found
    held_out: Bool[Tensor, "L"]  # landmarks that the fit did not use
    indices: tuple[int, ...]  # the landmarks' numbers in MediaPipe's set
    cost: float
    steps: tuple[int, int]  # accepted steps of the two stages
    problem: Problem  # of the second stage: identity and focal length frozen
    theta: Float[Tensor, "T P"]  # its minimum
    keys: Int[Tensor, "K"]  # key frames
    key_problem: Problem  # of the first stage, on these
    shared: Float[Tensor, "S+1"]  # its identity, and the log of the focal length


def solve(detections: Detections, rig: Rig, config: SolverConfig | None = None, *, focal_px: float | None = None) -> Solution:
    """Fit `rig` to the detected landmarks of all frames.

    Args:
        focal_px: The camera's focal length where it is known; None estimates one for the clip.

    Raises:
        ValueError: The rig has no MediaPipe landmarks, or no frame shows a face.
    """
    if not bool(detections.found.any()):
        raise ValueError("no frame shows a face; detect() refuses such clips")
    config, rig = config or SolverConfig(), rig.to("cpu")
    with one_thread():
        setup = build(detections, rig, config, focal_px)
        keys = key_frames(detections.found, config.key_frames)
        key_problem = _only(setup.problem, keys)
        first = minimise(key_problem, setup.start[keys], setup.problem.shared_mean, config.key_iterations)
        sigma = None if focal_px else focal_sigma(key_problem, first)
        problem, start = _frozen(setup, first, detections, rig, config)
        last = minimise(problem, start, first.shared[-1:], config.iterations)
        return _solution(setup, (keys, key_problem), problem, first, last, rig, sigma)


def key_frames(found: Bool[Tensor, "T"], n: int) -> Int[Tensor, "K"]:
    """At most `n` frames that show the face, evenly chosen."""
    frames = torch.nonzero(found)[:, 0]
    return frames[torch.linspace(0, len(frames) - 1, min(n, len(frames))).round().long()]


def _only(problem: Problem, frames: Tensor) -> Problem:
    """The problem of some frames by themselves."""
    per_frame = {k: getattr(problem, k)[frames] for k in ("pixels", "inverse_sigma", "prior_mean", "prior_precision")}
    return replace(problem, coupling=None, **per_frame)


def _frozen(setup: Setup, first: Minimum, detections: Detections, rig: Rig, config: SolverConfig) -> tuple[Problem, Tensor]:
    """The problem of all frames with identity and focal length as the key frames gave them, and where to start it."""
    problem = setup.problem
    model, log_focal = problem.model.at_shape(first.shared[:-1]), first.shared[-1:]
    start, _ = start_parameters(model, problem.pixels, setup.held_out, detections, rig, config, float(log_focal.exp()))
    frozen = replace(
        problem,
        model=model,
        shared_mean=log_focal,
        shared_precision=torch.zeros(1).double(),
        shared_free=False,
        prior_mean=prior_mean(model.layout, start),
    )
    return frozen, start


def _solution(
    setup: Setup, key: tuple[Tensor, Problem], problem: Problem, first: Minimum, last: Minimum, rig: Rig, sigma: float | None
) -> Solution:
    return Solution(
        params=_params(problem, last.theta, first.shared[: rig.n_shape].float()),
        focal_px=float(last.shared[-1].exp()),
        focal_sigma_px=sigma,
        errors_px=_errors(problem, last.theta),
        held_out=setup.held_out,
        indices=setup.indices,
        cost=last.cost,
        steps=(first.steps, last.steps),
        problem=problem,
        theta=last.theta,
        keys=key[0],
        key_problem=key[1],
        shared=first.shared,
    )


def _params(problem: Problem, theta: Float[Tensor, "T P"], shape: Tensor) -> RigParams:
    layout = problem.model.layout
    eyes = torch.zeros(len(theta), 6)
    eyes[:, [0, 1, 3, 4]] = theta[:, layout.eyes].float()
    return RigParams(
        shape=shape,
        expr=theta[:, layout.expr].float(),
        rotation=theta[:, layout.rotation].float(),
        neck_pose=torch.zeros(len(theta), 3),
        jaw_pose=theta[:, layout.jaw].float(),
        eyes_pose=eyes,
        translation=theta[:, layout.translation].float(),
    )


def solve_with_poses(
    solution: Solution,
    rotation: Float[Tensor, "T 3"],
    translation: Float[Tensor, "T 3"],
    known: Bool[Tensor, "T"],
    sigma: tuple[float, ...],
    *,
    key_steps: int,
    steps: int,
    trust: float,
) -> Solution:
    """The landmark fit once more, with poses of `known` frames that are known from elsewhere to within `sigma` (rad x 3, m x 3).

    Args:
        key_steps: Over the key frames, for an identity that goes with these poses; the focal length stays.
        steps: Then over all frames, identity and focal length frozen.
        trust: Factor on the weight of the landmarks.
    """
    layout, keys = solution.problem.model.layout, solution.keys
    theta = solution.theta.clone()
    theta[known, layout.rotation], theta[known, layout.translation] = rotation[known].to(theta), translation[known].to(theta)
    with one_thread():
        problem = _known_poses(solution.key_problem, theta[keys], known[keys], sigma, trust)
        exact, mean = problem.shared_precision.clone(), problem.shared_mean.clone()
        exact[-1], mean[-1] = EXACT, solution.shared[-1]
        problem = replace(problem, shared_mean=mean, shared_precision=exact)
        shared = minimise(problem, theta[keys], solution.shared, key_steps).shared
        frozen = replace(solution.problem, model=solution.key_problem.model.at_shape(shared[:-1]))
        last = minimise(_known_poses(frozen, theta, known, sigma, trust), theta, shared[-1:], steps)
        errors = _errors(frozen, last.theta)
    again = replace(solution, problem=frozen, theta=last.theta, cost=last.cost, steps=(solution.steps[0], solution.steps[1] + last.steps))
    shape = shared[: len(solution.params.shape)].float()
    return replace(again, shared=shared, params=_params(frozen, last.theta, shape), errors_px=errors)


def _known_poses(problem: Problem, theta: Tensor, known: Tensor, sigma: tuple[float, ...], trust: float) -> Problem:
    """`problem` with the poses of `theta` as priors where they are known. Elsewhere neighbours and landmarks decide as before."""
    layout, mean, precision = problem.model.layout, problem.prior_mean.clone(), problem.prior_precision.clone()
    for part, values in ((layout.rotation, sigma[:3]), (layout.translation, sigma[3:])):
        mean[known, part] = theta[known, part]
        precision[known, part] = theta.new_tensor(values) ** -2
    return replace(problem, prior_mean=mean, prior_precision=precision, data_weight=trust * problem.data_weight)


def _errors(problem: Problem, theta: Tensor) -> Float[Tensor, "T L"]:
    pixels = project(place(problem.model, theta, theta.new_zeros(0)), problem.shared_mean[-1].exp(), problem.centre)
    return (pixels - problem.pixels).norm(dim=-1).float()
