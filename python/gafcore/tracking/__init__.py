"""Tracking a raw clip: landmarks and masks by MediaPipe, one least-squares fit of a rig over all frames, a capture for fitting."""

from gafcore.tracking.assemble import split_by_yaw
from gafcore.tracking.config import SolverConfig, TrackConfig
from gafcore.tracking.detect import detect
from gafcore.tracking.detections import Detections
from gafcore.tracking.models import ModelFiles, find_models
from gafcore.tracking.solve import Solution, solve
from gafcore.tracking.track import Track, track, track_to_folder

__all__ = [
    "Detections",
    "ModelFiles",
    "Solution",
    "SolverConfig",
    "Track",
    "TrackConfig",
    "detect",
    "find_models",
    "solve",
    "split_by_yaw",
    "track",
    "track_to_folder",
]
