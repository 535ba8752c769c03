"""The rig through the clip: identity and focal length from key frames, then every frame with these frozen.

Forty even frames tell as much about the shared unknowns as all of them; with these frozen a frame knows only its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.tracking.config import SolverConfig
from gafcore.tracking.detections import Detections
from gafcore.tracking.least_squares import Minimum, Problem, minimise
from gafcore.tracking.points import place, project
from gafcore.tracking.setup import Setup, build, prior_mean, start_parameters
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
    with _one_thread():
        setup = build(detections, rig, config, focal_px)
        keys = key_frames(detections.found, config.key_frames)
        key_problem = _only(setup.problem, keys)
        first = minimise(key_problem, setup.start[keys], setup.problem.shared_mean, config.key_iterations)
        sigma = None if focal_px else focal_sigma(key_problem, first)
        problem, start = _frozen(setup, first, detections, rig, config)
        last = minimise(problem, start, first.shared[-1:], config.iterations)
    return _solution(setup, problem, first, last, rig, sigma)


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


def _solution(setup: Setup, problem: Problem, first: Minimum, last: Minimum, rig: Rig, sigma: float | None) -> Solution:
    layout, theta, focal = problem.model.layout, last.theta, last.shared[-1].exp()
    pixels = project(place(problem.model, theta, theta.new_zeros(0)), focal, problem.centre)
    eyes = torch.zeros(len(theta), 6)
    eyes[:, [0, 1, 3, 4]] = theta[:, layout.eyes].float()
    params = RigParams(
        shape=first.shared[: rig.n_shape].float(),
        expr=theta[:, layout.expr].float(),
        rotation=theta[:, layout.rotation].float(),
        neck_pose=torch.zeros(len(theta), 3),
        jaw_pose=theta[:, layout.jaw].float(),
        eyes_pose=eyes,
        translation=theta[:, layout.translation].float(),
    )
    return Solution(
        params=params,
        focal_px=float(focal),
        focal_sigma_px=sigma,
        errors_px=(pixels - problem.pixels).norm(dim=-1).float(),
        held_out=setup.held_out,
        indices=setup.indices,
        cost=last.cost,
        steps=(first.steps, last.steps),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small matrix products: threads cost more than they give, and one thread makes the result the same everywhere."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
