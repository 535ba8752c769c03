"""The least-squares problem of a clip: which landmarks count how much, where the parameters start, and what is expected of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.config import SolverConfig
from gafcore.tracking.detections import Detections
from gafcore.tracking.initial import bridge, orthographic_poses
from gafcore.tracking.least_squares import Problem
from gafcore.tracking.points import Layout, PointModel, point_model

LANDMARKS = "mediapipe"
# MediaPipe's landmarks on the brows, both sides: texture, not geometry.
BROWS = (46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336)
IRISES = tuple(range(468, 478))

EXACT = 1e12  # precision of a number that is given
_BRIDGED = 1e-2  # factor on a frame's own prior where no face was found, so that its neighbours decide
_KEEP = 1e-6  # precision that holds a pose which nothing else determines (a shot without a face)
_STILL_RAD = 1e-3  # how much the jaw joint may turn where a blendshape opens the mouth
_FRAME_S = 1 / 30  # the smoothness is stated for this time step
_GAP_S = 0.5  # frames further apart than this hardly know of each other


@dataclass(frozen=True)
class Setup:
    """The problem over all frames with everything free, and what it was made of."""

    problem: Problem
    start: Float[Tensor, "T P"]
    held_out: Bool[Tensor, "L"]
    indices: tuple[int, ...]


def held_out_landmarks(indices: Tensor) -> Bool[Tensor, "L"]:
    """Every twelfth landmark is always kept from the fit, to report on. Never a brow's (its own offset would be unknown) or an iris'."""
    return (indices % 12 == 5) & ~torch.isin(indices, torch.tensor(BROWS + IRISES))


def build(detections: Detections, rig: Rig, config: SolverConfig, focal_px: float | None) -> Setup:
    """Everything the solver needs, float64.

    Raises:
        ValueError: The rig has no MediaPipe landmarks.
    """
    model = point_model(rig, LANDMARKS)
    indices = rig.landmarks[LANDMARKS].indices
    modes = brow_modes(model, indices)
    n_shape = len(model.shape)
    model = model.with_modes(modes)
    held_out = held_out_landmarks(indices)
    pixels = detections.landmarks[:, indices].double()
    focal = focal_px or config.focal_prior * max(detections.width, detections.height)
    start, px_per_m = start_parameters(model, pixels, held_out, detections, rig, config, focal)
    shared_sigma = torch.tensor([config.identity_sigma] * n_shape + [config.brow_offset_m] * len(modes)).double()
    focal_precision = EXACT if focal_px else config.focal_log_sigma**-2
    problem = Problem(
        model=model,
        pixels=pixels,
        inverse_sigma=_inverse_sigma(rig, indices, held_out, px_per_m, detections.found, config),
        centre=(detections.width / 2, detections.height / 2),
        prior_mean=prior_mean(model.layout, start),
        prior_precision=_prior_precision(model.layout, detections.found, config, rig),
        bounded=_bounded(model.layout, rig),
        bounds_precision=config.bounds_sigma**-2,
        vergence_precision=config.vergence_sigma_rad**-2,
        coupling=_coupling(model.layout, detections, config),
        shared_mean=torch.cat([torch.zeros(len(shared_sigma)).double(), torch.tensor([math.log(focal)]).double()]),
        shared_precision=torch.cat([shared_sigma**-2, torch.tensor([focal_precision]).double()]),
        shared_free=True,
        data_weight=config.data_weight,
        huber=config.huber,
    )
    return Setup(problem, start, held_out, tuple(indices.tolist()))


def brow_modes(model: PointModel, indices: Tensor) -> Float[Tensor, "M L 3"]:
    """Two modes a brow landmark that slide it over the face, per metre, along the two axes across its outward direction."""
    brows = torch.nonzero(torch.isin(indices, torch.tensor(BROWS)))[:, 0]
    modes = model.rest.new_zeros(2 * len(brows), model.n_points, 3)
    # The head is about a sphere about its landmarks' mean, 8 cm behind the face: its direction is normal enough for a slide of millimetres.
    centre = model.rest.mean(0) - model.rest.new_tensor([0.0, 0.0, 0.08])
    outward = torch.nn.functional.normalize(model.rest[brows] - centre, dim=-1)
    up = model.rest.new_tensor([0.0, 1.0, 0.0]).expand_as(outward)
    across = torch.nn.functional.normalize(torch.linalg.cross(up, outward), dim=-1)
    along = torch.linalg.cross(outward, across)
    modes[torch.arange(len(brows)), brows] = across
    modes[len(brows) + torch.arange(len(brows)), brows] = along
    return modes


def start_parameters(
    model: PointModel, pixels: Tensor, held_out: Tensor, detections: Detections, rig: Rig, config: SolverConfig, focal_px: float
) -> tuple[Float[Tensor, "T P"], Float[Tensor, "T"]]:
    """Poses by scaled orthography, expressions from MediaPipe's coefficients by name; and the scale of the face, px per metre."""
    found, times = detections.found, detections.times_s
    layout = model.layout
    poses = orthographic_poses(model.rest[~held_out], pixels[found][:, ~held_out])
    scores = start_expressions(detections, rig, config.score_share)
    filled = bridge(torch.cat([poses.rotation, poses.centroid_px, poses.px_per_m[:, None], scores[found].double()], 1), found, times)
    rotation, centroid_px, px_per_m, expr = filled.split([3, 2, 1, layout.n_expr], 1)
    theta = pixels.new_zeros(len(found), layout.size)
    theta[:, layout.rotation], theta[:, layout.expr] = rotation, expr
    depth = focal_px / px_per_m
    offset = centroid_px - pixels.new_tensor([detections.width / 2, detections.height / 2])
    centroid = torch.cat([offset[:, :1] / px_per_m, -offset[:, 1:] / px_per_m, -depth], 1)
    matrix, root = axis_angle_to_matrix(rotation), model.centres[0]
    theta[:, layout.translation] = centroid - ((model.rest[~held_out].mean(0) - root) @ matrix.mT + root)
    return theta, px_per_m[:, 0]


def prior_mean(layout: Layout, start: Float[Tensor, "T P"]) -> Float[Tensor, "T P"]:
    """No expression, eyes ahead; poses where they start. MediaPipe's coefficients are good to start from, but biased: brows most of all."""
    mean = start.clone()
    mean[:, layout.expr] = 0
    return mean


def start_expressions(detections: Detections, rig: Rig, share: float) -> Float[Tensor, "T E"]:
    """`share` of MediaPipe's coefficients, by name; one that the rig splits into sides goes to both. 0 where no name fits."""
    scores = {_plain(name): i for i, name in enumerate(detections.score_names)}
    expr = torch.zeros(len(detections), rig.n_expr)
    for k, name in enumerate(rig.expression_names):
        plain = _plain(name)
        column = scores.get(plain, scores.get(plain[:-1]) if plain[-1:] in ("l", "r") else None)
        if column is not None:
            expr[:, k] = share * detections.scores[:, column]
    return expr


def _plain(name: str) -> str:
    """One spelling for eyeBlinkLeft, eyeBlink_L and eyeBlink_l."""
    name = name.replace("_", "").lower()
    return name[:-4] + "l" if name.endswith("left") else name[:-5] + "r" if name.endswith("right") else name


def _has_arkit_names(rig: Rig) -> bool:
    return "jawopen" in {_plain(name) for name in rig.expression_names}


def _bounded(layout: Layout, rig: Rig) -> Bool[Tensor, "P"]:
    bounded = torch.zeros(layout.size, dtype=torch.bool)
    bounded[layout.expr] = _has_arkit_names(rig)
    return bounded


def _prior_precision(layout: Layout, found: Tensor, config: SolverConfig, rig: Rig) -> Float[Tensor, "T P"]:
    precision = torch.full((len(found), layout.size), _KEEP, dtype=torch.float64)
    precision[:, layout.eyes] = config.eyes_sigma_rad**-2
    precision[:, layout.jaw] = _STILL_RAD**-2 if _has_arkit_names(rig) else config.jaw_sigma_rad**-2
    precision[:, layout.expr] = config.expression_sigma**-2
    precision[~found] *= _BRIDGED
    return precision


def _inverse_sigma(
    rig: Rig, indices: Tensor, held_out: Tensor, px_per_m: Tensor, found: Tensor, config: SolverConfig
) -> Float[Tensor, "T L"]:
    """1 / standard deviation of each landmark, px: its spread over people and the detector's noise, both of them sizes on the face."""
    spread = rig.landmark_spread.get(LANDMARKS, torch.zeros(len(indices))).double()
    spread = torch.where(torch.isin(indices, torch.tensor(IRISES)), 0.0, spread)
    sigma = px_per_m[:, None] * (config.landmark_noise_m**2 + spread**2).sqrt()
    return torch.where(found[:, None] & ~held_out, 1 / sigma, 0.0)


def _coupling(layout: Layout, detections: Detections, config: SolverConfig) -> Float[Tensor, "T-1 P"]:
    """Precisions of the first differences: by the time between frames, none across a cut."""
    smooth = config.first_differences()
    sigma = torch.empty(layout.size, dtype=torch.float64)
    sigma[layout.rotation], sigma[layout.translation] = smooth.rotation_rad, torch.tensor(smooth.translation_m).double()
    sigma[layout.eyes], sigma[layout.jaw], sigma[layout.expr] = smooth.eyes_rad, smooth.jaw_rad, smooth.expression
    step = (detections.times_s.double().diff() / _FRAME_S).clamp(0.2, _GAP_S / _FRAME_S)
    coupling = (sigma * step[:, None]) ** -2
    coupling[[cut - 1 for cut in detections.cuts]] = 0
    return coupling
