"""Tracking from start to end: a clip goes in, a capture with the rig's parameters over time comes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gafcore.captures import vhap, video
from gafcore.captures.vhap_write import check_target
from gafcore.captures.video import Clip
from gafcore.errors import InputError
from gafcore.files import write_json
from gafcore.rigs import load_rig
from gafcore.rigs.base import Rig
from gafcore.tracking.assemble import assemble
from gafcore.tracking.bundle import adjust
from gafcore.tracking.config import TrackConfig
from gafcore.tracking.detect import detect
from gafcore.tracking.detections import Detections
from gafcore.tracking.mask import head_limits
from gafcore.tracking.matte import Matte, head_mattes
from gafcore.tracking.models import ModelFiles, find_models, import_mediapipe, import_opencv
from gafcore.tracking.overlay import write_overlay_sheet, write_overlay_video
from gafcore.tracking.report import report
from gafcore.tracking.setup import LANDMARKS
from gafcore.tracking.solve import Solution, solve
from gafcore.types import Capture

_STAGES = ("read", "detect", "solve", "refine", "head mask", "matte")  # one after the other; detection's own parts overlap


@dataclass(frozen=True)
class Track:
    """A tracked clip. `report` is JSON; `solution` is in camera space, `capture` has the rig about the origin."""

    capture: Capture
    detections: Detections
    solution: Solution
    report: dict[str, Any]


def track(clip: Clip, rig: Rig, config: TrackConfig | None = None, *, models: ModelFiles | None = None, reading_s: float = 0.0) -> Track:
    """Fit `rig` to every frame of `clip`: landmarks and masks, a least-squares solve, poses by points of the whole head, mattes.

    Args:
        clip: gafcore.captures.video.read gives one.
        rig: Must have MediaPipe landmarks.
        models: Where MediaPipe's files are; by default as `find_models(config.models)` finds them.
        reading_s: Seconds that reading the clip took, for the report.

    Raises:
        MissingError: MediaPipe or a model file is absent.
        InputError: The rig has no MediaPipe landmarks, or no frame shows a face.
    """
    config = config or TrackConfig()
    if LANDMARKS not in rig.landmarks or len(rig.landmarks[LANDMARKS].indices) == 0:
        raise InputError(f"rig {rig.name!r} has no {LANDMARKS} landmarks, so it cannot be tracked")
    import_opencv()  # said before the work, not after it
    detections = detect(clip, models or find_models(config.models), max_frames=config.max_frames, min_confidence=config.min_confidence)
    seconds = {"read": reading_s, **detections.seconds}
    start = time.perf_counter()
    solver = config.solver
    if config.refine:  # `adjust` goes on from there
        solver = replace(solver, iterations=(solver.iterations + 1) // 2)
    solution = solve(detections, rig, solver, focal_px=config.focal)
    seconds["solve"] = time.perf_counter() - start
    if config.refine:
        start = time.perf_counter()
        solution = adjust(clip, detections, rig, solution)
        seconds["refine"] = time.perf_counter() - start
    start = time.perf_counter()
    limits = head_limits(detections, rig, solution)
    person = detections.person.numpy()
    masks: Sequence[np.ndarray | Matte] = [] if config.matte else [limit.apply(p) for limit, p in zip(limits, person, strict=True)]
    seconds["head mask"] = time.perf_counter() - start
    if config.matte:
        start = time.perf_counter()
        masks = head_mattes(clip, detections, limits)
        seconds["matte"] = time.perf_counter() - start
    seconds["total"] = sum(seconds.get(stage, 0.0) for stage in _STAGES)
    capture = assemble(clip, detections, rig, solution, masks, split=config.split)
    return Track(capture, detections, solution, report(detections, solution, seconds))


def track_to_folder(clip_path: str | Path, out: str | Path, config: TrackConfig | None = None) -> Track:
    """Track a clip and write everything: the capture (VHAP layout), `report.json`, `overlay.png` and, for a video, `overlay.mp4`.

    Raises:
        GafError: As `track`; or the clip or the rig cannot be read, or `out` holds anything but an earlier capture.
    """
    check_target(out)
    config = config or TrackConfig()
    models = find_models(config.models)
    with ThreadPoolExecutor(1) as pool:  # MediaPipe takes a second to import
        importing = pool.submit(import_mediapipe)
        rig = load_rig(config.rig)
        importing.result()
    start = time.perf_counter()
    clip = video.read(clip_path, max_frames=config.max_frames)
    tracked = track(clip, rig, config, models=models, reading_s=time.perf_counter() - start)
    out = Path(out)
    vhap.write(tracked.capture, out)
    write_json(out / "report.json", tracked.report)
    write_overlay_sheet(out / "overlay.png", clip, rig, tracked.capture, tracked.detections)
    if len(clip) > 1 and config.overlay == "video":
        write_overlay_video(out / "overlay.mp4", clip, rig, tracked.capture, clip.fps)
    return tracked
