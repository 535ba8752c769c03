"""How well the clip determines the focal length."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.tracking.jacobian import linearise
from gafcore.tracking.least_squares import Minimum, Problem, shared_information
from gafcore.tracking.threads import side_by_side

_CHUNK = 5  # frames whose Jacobians, in float64 here, a thread makes at once


def focal_sigma(problem: Problem, minimum: Minimum) -> float:
    """Standard deviation of the focal length, px, at the minimum of a problem with free shared unknowns.

    A landmark's error is mostly the same in every frame: the detector's idea of the point on this person. The inverse of the normal matrix
    takes errors for independent and comes out several times too sure, so this is a sandwich estimate with each landmark's errors over the
    clip as one cluster (Liang and Zeger 1986), enlarged for neighbouring landmarks as the data weight is; the priors count as observed.
    """
    information = shared_information(problem, minimum)
    scores = _scores(problem, minimum)
    meat = scores.T @ scores / problem.data_weight + torch.diag(problem.shared_precision)
    row = torch.linalg.solve(information, torch.eye(len(information), dtype=information.dtype)[-1])
    return float(minimum.shared[-1].exp() * (row @ meat @ row).sqrt())


def _scores(problem: Problem, minimum: Minimum) -> Float[Tensor, "L S+1"]:
    """Each landmark's pull on the shared unknowns, summed over the clip, with the frames' own parameters following."""

    def scores(start: int) -> Tensor:
        frames = slice(start, start + _CHUNK)
        part, theta, shared = problem.frames(frames), minimum.theta[frames], minimum.shared
        line = linearise(problem.model, theta, shared[:-1], shared[-1].exp(), problem.centre, shared=True, weigh=part.weigh)
        assert line.weights is not None and line.shared is not None
        error = part.errors(line.pixels) * line.weights[..., None]  # [T, L, 2]
        by_frame, by_shared = line.frame.flatten(1, 2), line.shared.flatten(1, 2)
        normal = by_frame.mT @ by_frame + torch.diag_embed(problem.prior_precision[frames])
        follows = torch.linalg.solve(normal, by_frame.mT @ by_shared)
        pull = lambda jacobian: (jacobian.unflatten(1, (-1, 2)) * error[..., None]).sum(2)  # noqa: E731
        return (pull(by_shared) - pull(by_frame) @ follows).sum(0)

    return torch.stack(side_by_side(scores, range(0, len(minimum.theta), _CHUNK))).sum(0)
