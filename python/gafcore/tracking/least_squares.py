"""Levenberg-Marquardt over all frames of a clip, with the block structure of the problem used."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.tracking.blocks import solve_blocks
from gafcore.tracking.jacobian import linearise
from gafcore.tracking.points import PointModel, place, project
from gafcore.tracking.threads import side_by_side

_CHUNK = 7  # frames whose Jacobians a thread makes at once: 7 x 442 points x 2 x 70 parameters is 1.7 MB; forty key frames are six
_DAMPING = 1e-3
_DAMPING_LIMIT = 1e8
_CONVERGED = 1e-4  # relative decrease of the cost at which another step is not worth its time


@dataclass(frozen=True)
class Problem:
    """Landmarks over T frames, priors and smoothness. Precisions are 1 / sigma^2; a precision of zero leaves a parameter free.

    Shared unknowns are the model's shape coefficients, then the log of the focal length.
    """

    model: PointModel
    pixels: Float[Tensor, "T L 2"]
    inverse_sigma: Float[Tensor, "T L"]  # 1 / px; 0 where a landmark is not known
    centre: tuple[float, float]  # principal point, px
    prior_mean: Float[Tensor, "T P"]
    prior_precision: Float[Tensor, "T P"]
    bounded: Bool[Tensor, "P"]  # parameters held softly in 0..1
    bounds_precision: float
    vergence_precision: float  # of the difference between the eyes
    coupling: Float[Tensor, "T-1 P"] | None  # precision of the first differences
    shared_mean: Float[Tensor, "S+1"]
    shared_precision: Float[Tensor, "S+1"]
    shared_free: bool
    data_weight: float
    huber: float

    def frames(self, chunk: slice) -> Problem:
        return replace(self, pixels=self.pixels[chunk], inverse_sigma=self.inverse_sigma[chunk])

    def fitted(self) -> Problem:
        """The same problem without the landmarks that are nowhere known or held out: they only cost time."""
        used = (self.inverse_sigma > 0).any(0)
        return replace(self, model=self.model.of_points(used), pixels=self.pixels[:, used], inverse_sigma=self.inverse_sigma[:, used])

    def errors(self, pixels: Tensor) -> Float[Tensor, "T L 2"]:
        """Projected minus detected landmarks; 0 where a landmark is not known."""
        return torch.where(self.inverse_sigma[..., None] > 0, pixels - self.pixels, 0.0).to(pixels.dtype)

    def weigh(self, pixels: Tensor) -> Float[Tensor, "T L"]:
        """Square roots of the landmarks' weights: precision, and Huber's down-weighting of what is far off."""
        inverse_sigma = self.inverse_sigma.to(pixels.dtype)
        size = self.errors(pixels).norm(dim=-1) * inverse_sigma
        return inverse_sigma * (self.data_weight * self.huber / size.clamp(min=self.huber)).sqrt()


@dataclass(frozen=True)
class Minimum:
    """Where the solver stopped."""

    theta: Float[Tensor, "T P"]
    shared: Float[Tensor, "S+1"]
    cost: float
    steps: int


def cost(problem: Problem, theta: Tensor, shared: Tensor) -> float:
    """Half the weighted sum of squares, Huber's function on the landmarks."""
    pixels = project(place(problem.model, theta, shared[:-1]), shared[-1].exp(), problem.centre)
    size = problem.errors(pixels).norm(dim=-1) * problem.inverse_sigma
    k = problem.huber
    total = problem.data_weight * torch.where(size < k, size * size / 2, k * (size - k / 2)).sum()
    total = total + 0.5 * (problem.prior_precision * (theta - problem.prior_mean) ** 2).sum()
    total = total + 0.5 * problem.bounds_precision * (_outside(theta) ** 2)[:, problem.bounded].sum()
    total = total + 0.5 * problem.vergence_precision * (_vergence(problem, theta) ** 2).sum()
    if problem.coupling is not None:
        total = total + 0.5 * (problem.coupling * theta.diff(dim=0) ** 2).sum()
    return float(total + 0.5 * (problem.shared_precision * (shared - problem.shared_mean) ** 2).sum())


def _outside(theta: Tensor) -> Tensor:
    return theta - theta.clamp(0, 1)


def _vergence(problem: Problem, theta: Tensor) -> Tensor:
    eyes = theta[:, problem.model.layout.eyes]
    return eyes[:, :2] - eyes[:, 2:]


@dataclass(frozen=True)
class _System:
    diagonal: Tensor  # [T, P, P]
    gradient: Tensor  # [T, P]
    border: Tensor | None  # [T, P, S+1]
    corner: Tensor  # [S+1, S+1]
    corner_gradient: Tensor  # [S+1]
    held: Tensor  # [T, P], parameters that their bounds hold


def _landmark_terms(problem: Problem, single: PointModel, theta: Tensor, shared: Tensor) -> _System:
    """Gauss-Newton blocks of the landmark errors. Jacobians and products in float32, everything else in float64."""
    n_frames, size = theta.shape
    diagonal, gradient = theta.new_zeros(n_frames, size, size), theta.new_zeros(n_frames, size)
    border = theta.new_zeros(n_frames, size, len(shared)) if problem.shared_free else None
    corner, corner_gradient = theta.new_zeros(len(shared), len(shared)), theta.new_zeros(len(shared))
    shape, focal = shared[:-1].float(), shared[-1].exp().float()

    def fill(start: int) -> tuple[Tensor, Tensor] | None:
        chunk = slice(start, start + _CHUNK)
        part = problem.frames(chunk)
        line = linearise(single, theta[chunk].float(), shape, focal, part.centre, shared=problem.shared_free, weigh=part.weigh)
        assert line.weights is not None
        error = (part.errors(line.pixels) * line.weights[..., None]).flatten(1)
        jacobian = line.frame.flatten(1, 2)
        diagonal[chunk] = jacobian.mT @ jacobian
        gradient[chunk] = -(error[:, None] @ jacobian)[:, 0]
        if border is None or line.shared is None:
            return None
        by_shared = line.shared.flatten(1, 2)
        border[chunk] = jacobian.mT @ by_shared
        by_shared, error = by_shared.flatten(0, 1), error.flatten()
        return by_shared.T @ by_shared, by_shared.T @ error

    for shares in side_by_side(fill, range(0, n_frames, _CHUNK)):
        if shares is not None:
            corner += shares[0]
            corner_gradient -= shares[1]
    return _System(diagonal, gradient, border, corner, corner_gradient, torch.zeros(theta.shape, dtype=torch.bool))


def _add_priors(problem: Problem, system: _System, theta: Tensor, shared: Tensor) -> None:
    """Add priors, bounds and smoothness in place; the couplings between frames stay implicit."""
    precision = problem.prior_precision.clone()
    system.gradient.sub_(problem.prior_precision * (theta - problem.prior_mean))
    if problem.coupling is not None:
        pull = problem.coupling * theta.diff(dim=0)
        system.gradient[:-1] += pull
        system.gradient[1:] -= pull
        precision[:-1] += problem.coupling
        precision[1:] += problem.coupling
    leaves = ((theta == 0) & (system.gradient < 0)) | ((theta == 1) & (system.gradient > 0))
    system.held.copy_(problem.bounded & (leaves | (_outside(theta) != 0)))
    precision += problem.bounds_precision * system.held
    system.gradient.sub_(problem.bounds_precision * torch.where(problem.bounded, _outside(theta), 0.0))
    system.diagonal.diagonal(dim1=1, dim2=2).add_(precision)
    eyes, k = problem.model.layout.eyes, problem.vergence_precision
    pair = theta.new_tensor([[1.0, -1.0], [-1.0, 1.0]]).kron(torch.eye(2, dtype=theta.dtype)) * k
    system.diagonal[:, eyes, eyes] += pair
    system.gradient[:, eyes] -= theta[:, eyes] @ pair
    system.corner.diagonal().add_(problem.shared_precision)
    system.corner_gradient.sub_(problem.shared_precision * (shared - problem.shared_mean))


def _step(problem: Problem, system: _System, damping: float) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A damped step of the frames' and the shared unknowns (None where frozen), and the border's Schur complement."""
    diagonal = system.diagonal.clone()
    diagonal.diagonal(dim1=1, dim2=2).mul_(1 + damping)
    if system.border is None:
        return solve_blocks(diagonal, problem.coupling, system.gradient)
    corner = system.corner.clone()
    corner.diagonal().mul_(1 + damping)
    return solve_blocks(diagonal, problem.coupling, system.gradient, system.border, corner, system.corner_gradient)


def _moved(
    problem: Problem, held: Tensor, theta: Tensor, shared: Tensor, step: Tensor, shared_step: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The parameters after a step. Distance follows the focal length exactly: the valley of equal pictures is curved in these two.

    What would leave its bounds stops at them for this step: the equations did not know of the bound.
    """
    trial = torch.where(problem.bounded & ~held, (theta + step).clamp(0, 1), theta + step)
    if shared_step is None:
        return trial, shared
    depth, log_ratio = problem.model.layout.translation.stop - 1, shared_step[-1].clamp(-1, 1)
    trial[:, depth] = (trial[:, depth] - theta[:, depth] * log_ratio) * log_ratio.exp()
    return trial, torch.cat([shared[:-1] + shared_step[:-1], shared[-1:] + log_ratio])


def shared_information(problem: Problem, minimum: Minimum) -> Float[Tensor, "S+1 S+1"]:
    """Inverse covariance of the shared unknowns at the minimum, the frames' eliminated."""
    problem = problem.fitted()
    system = _landmark_terms(problem, problem.model.to(torch.float32), minimum.theta, minimum.shared)
    _add_priors(problem, system, minimum.theta, minimum.shared)
    information = _step(problem, system, damping=0.0)[2]
    assert information is not None
    return information


def minimise(problem: Problem, theta: Float[Tensor, "T P"], shared: Float[Tensor, "S+1"], iterations: int) -> Minimum:
    """Levenberg-Marquardt from (theta, shared), float64. Stops after `iterations` accepted steps, or when the cost stands still."""
    problem = problem.fitted()
    single = problem.model.to(torch.float32)
    best = cost(problem, theta, shared)
    damping, steps = _DAMPING, 0
    system: _System | None = None
    while steps < iterations and damping < _DAMPING_LIMIT:
        if system is None:
            system = _landmark_terms(problem, single, theta, shared)
            _add_priors(problem, system, theta, shared)
        try:
            step, shared_step, _ = _step(problem, system, damping)
        except torch.linalg.LinAlgError:
            damping *= 8
            continue
        trial, trial_shared = _moved(problem, system.held, theta, shared, step, shared_step)
        value = cost(problem, trial, trial_shared)
        if not value < best:  # also when it is NaN
            damping *= 8
            continue
        gain, best = best - value, value
        theta, shared = trial, trial_shared
        damping, steps, system = damping / 5, steps + 1, None
        if gain < _CONVERGED * best:
            break
    return Minimum(theta, shared, best, steps)
