"""What a user can set about tracking; the command line shows these fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gafcore.errors import InputError


@dataclass(frozen=True)
class Smoothness:
    """How much a parameter may change in 1/30 s, one standard deviation. Smaller is smoother; scaled with the time between frames."""

    rotation_rad: float = 0.02
    translation_m: tuple[float, float, float] = (0.001, 0.001, 0.0015)
    expression: float = 0.08
    eyes_rad: float = 0.15
    jaw_rad: float = 0.08


def gaf_smoothness(rotation_rad: float = 0.02) -> Smoothness:
    """GAF's weights (translation 3e4, rotation 3e3, jaw 4, eyes 1, expression 0.5). They are relative: the rotation sets the scale.

    A weight w on a squared difference is a standard deviation proportional to 1 / sqrt(w).
    """
    sigma = lambda weight: rotation_rad * (3e3 / weight) ** 0.5  # noqa: E731
    return Smoothness(rotation_rad, (sigma(3e4),) * 3, sigma(0.5), sigma(1.0), sigma(4.0))


@dataclass(frozen=True)
class SolverConfig:
    """The least-squares fit. Standard deviations of the priors; the defaults come from a study on a synthetic clip with known vertices."""

    key_frames: int = 40
    """frames from which identity and focal length are estimated, evenly chosen"""
    key_iterations: int = 12
    """Gauss-Newton steps, at most, for identity and focal length: they slide a long way along a valley of nearly equal pictures"""
    iterations: int = 4
    """Gauss-Newton steps over all frames; with `refine` half as many, and two more once the poses are adjusted"""
    data_weight: float = 0.25
    """all landmark terms are multiplied by this: neighbouring landmarks err together"""
    landmark_noise_m: float = 0.00053
    """error of a landmark besides its own spread, on the face"""
    huber: float = 2.0
    """standard deviations beyond which an error counts linearly"""
    identity_sigma: float = 0.5
    """of the identity coefficients, which are N(0, 1) over people"""
    expression_sigma: float = 0.3
    """of the expression coefficients, about zero"""
    score_share: float = 0.7
    """expressions start at this share of MediaPipe's coefficients"""
    bounds_sigma: float = 0.03
    """softness of the bounds 0..1 of ARKit expressions"""
    eyes_sigma_rad: float = 0.5
    """of the gaze about straight ahead, radians"""
    vergence_sigma_rad: float = 0.05
    """of the difference between the two eyes' gaze, radians"""
    jaw_sigma_rad: float = 0.3
    """of the jaw joint about closed, radians"""
    brow_offset_m: float = 0.008
    """static sliding of the brow landmarks over the mesh: brows are texture"""
    focal_prior: float = 2.75
    """expected focal length, in units of the picture's long side"""
    focal_log_sigma: float = 0.4
    """of the focal length's natural logarithm about its expected value"""
    smoothness: Literal["study", "gaf"] = "study"
    """relative weights of the first differences in time: of this package's study, or of the GAF paper"""

    def __post_init__(self) -> None:
        for name in ("key_frames", "key_iterations", "iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, value in vars(self).items():
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be a number, at least 0, got {value}")
            if value == 0 and name != "score_share":  # what is divided by, the data weight where the focal length's sigma is estimated
                raise InputError(f"{name} must be > 0, got 0; a small number does nearly the same")

    def first_differences(self) -> Smoothness:
        return Smoothness() if self.smoothness == "study" else gaf_smoothness()


@dataclass(frozen=True)
class TrackConfig:
    """Tracking a clip."""

    rig: str = "procedural"
    """rig to fit: procedural, or ict:PATH"""
    models: Path | None = None
    """folder of MediaPipe's model files; default $GAFCORE_MODELS, else the user's cache"""
    max_frames: int | None = None
    """only the first frames of the clip"""
    focal: float | None = None
    """focal length in pixels where it is known; otherwise it is estimated and reported with its uncertainty"""
    refine: bool = True
    """adjust every frame's pose to points of the whole head after the landmarks (a degree of pitch, some milliseconds a frame)"""
    matte: bool = True
    """sharpen head masks by colour and take the background's colour out of the hair's rim (some milliseconds a frame)"""
    split: Literal["all", "frontal"] = "all"
    """frames that train: all, or those within 6 degrees of the median yaw (those beyond 10 degrees become "test")"""
    min_confidence: float = 0.5
    """confidence below which a face does not count"""
    overlay: Literal["video", "sheet"] = "video"
    """what shows the mesh over the pictures: a video beside the sheet, or the sheet alone"""
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise InputError(f"min_confidence must be in 0..1, got {self.min_confidence}")
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"max_frames must be at least 1, got {self.max_frames}")
        if self.focal is not None and not 0 < self.focal < math.inf:
            raise InputError(f"focal must be > 0 px, got {self.focal}")
