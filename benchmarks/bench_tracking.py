"""Tracking by stage on a real clip, and how far the mesh is from the truth on a synthetic one with the same motion.

The real clip needs the test data (GAFCORE_TEST_DATA) and MediaPipe; without them only the solver on made-up landmarks is measured.
GAFCORE_TRUTH_FRAMES limits the synthetic clip.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gafcore.captures import video
from gafcore.captures.synthetic.motion import random_identity, random_motion
from gafcore.rigs import load_rig
from gafcore.tracking import TrackConfig, detect, find_models, solve, track
from gafcore.tracking.assemble import centred
from gafcore.tracking.bundle import adjust
from gafcore.tracking.config import SolverConfig
from gafcore.tracking.mask import head_limits, head_masks
from gafcore.tracking.matte import head_mattes
from gafcore.tracking.report import percentiles
from gafcore.types import Camera
from tests.reference.tracking_truth import film, vertex_errors
from tests.tracking.toy import toy_detections

_DATA = Path(os.environ.get("GAFCORE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
_TRUTH_FRAMES = int(os.environ.get("GAFCORE_TRUTH_FRAMES", "100"))
_FOCAL_PX = 1500.0


@pytest.fixture(scope="module")
def tracked():
    pytest.importorskip("mediapipe", reason="tracking needs mediapipe: pip install 'gafcore[track]'")
    if not _DATA.is_dir():
        pytest.skip("test data not found (GAFCORE_TEST_DATA names the folder)")
    rig, models = load_rig(f"ict:{_DATA / 'rig/ict/ict_facekit_light_f16.npz'}"), find_models(_DATA / "models")
    clip = video.read(_DATA / "clips/expressive.mp4")
    return clip, rig, models, track(clip, rig, TrackConfig(), models=models)


@pytest.mark.parametrize("frames", [30, 300])
def test_solve_made_up_landmarks(benchmark, frames):
    """The procedural head's own landmarks with half a pixel of noise: what the solver costs without anything to download."""
    rig = load_rig("procedural")
    motion = random_motion(rig, random_identity(rig, 0), 0, frames, 30.0)
    motion = replace(motion, translation=motion.translation - torch.tensor([0.0, 0.0, 0.8]))
    detections = toy_detections(rig, motion, _FOCAL_PX / 2, size=(512, 512), noise_px=0.5)
    solution = benchmark.pedantic(solve, (detections, rig), {"focal_px": _FOCAL_PX / 2}, rounds=3)
    benchmark.extra_info["ms_a_frame"] = 1e3 * benchmark.stats.stats.median / frames
    benchmark.extra_info.update(percentiles(solution.errors_px[:, solution.held_out]))


def test_detect(benchmark, tracked):
    """Landmarks and masks side by side, of 60 frames."""
    clip, _, models, _ = tracked
    benchmark.pedantic(detect, (clip, models), {"max_frames": 60}, rounds=3)
    benchmark.extra_info["ms_a_frame"] = 1e3 * benchmark.stats.stats.median / 60


def test_solve(benchmark, tracked):
    _, rig, _, result = tracked
    solution = benchmark.pedantic(solve, (result.detections, rig), rounds=3)
    held = percentiles(solution.errors_px[:, solution.held_out])
    benchmark.extra_info.update(ms_a_frame=1e3 * benchmark.stats.stats.median / len(result.detections), **held)


def test_adjust(benchmark, tracked):
    """Points of the whole head followed, poses adjusted, the landmarks' last word."""
    clip, rig, _, result = tracked
    before = solve(result.detections, rig, SolverConfig(iterations=2))
    after = benchmark.pedantic(adjust, (clip, result.detections, rig, before), rounds=3)
    held = percentiles(after.errors_px[:, after.held_out])
    benchmark.extra_info.update(ms_a_frame=1e3 * benchmark.stats.stats.median / len(result.detections), **held)


def test_head_masks(benchmark, tracked):
    _, rig, _, result = tracked
    benchmark.pedantic(head_masks, (result.detections, rig, result.solution), rounds=3)
    benchmark.extra_info["ms_a_frame"] = 1e3 * benchmark.stats.stats.median / len(result.detections)


def test_head_mattes(benchmark, tracked):
    clip, rig, _, result = tracked
    limits = head_limits(result.detections, rig, result.solution)
    mattes = benchmark.pedantic(head_mattes, (clip, result.detections, limits), rounds=3)
    kept = sum(len(m.packed) + m.background.nbytes for m in mattes) / len(mattes)
    benchmark.extra_info.update(ms_a_frame=1e3 * benchmark.stats.stats.median / len(mattes), kept_kb_a_frame=kept / 1e3)


def test_truth(benchmark, tracked):
    """Visible vertex error, px at 512x512: another identity and look, this clip's motion, a camera that the tracker does not know."""
    _, rig, models, result = tracked
    frames = list(range(len(result.detections)))[:_TRUTH_FRAMES]
    params, seen = centred(result.solution, 512, 512)
    ratio = _FOCAL_PX / result.solution.focal_px  # the same size in the picture from another distance
    viewmat = seen.viewmat.clone()
    viewmat[2, 3] *= ratio
    k = torch.tensor([[_FOCAL_PX, 0, 256.0], [0, _FOCAL_PX, 256.0], [0, 0, 1]])
    camera = Camera(viewmat, k, 512, 512)
    clip, truth = film(rig, replace(params[frames], static_offset=None), camera, seed=7, hair="bald", samples=2, page_px=512)
    again = benchmark.pedantic(track, (clip, rig, TrackConfig()), {"models": models}, rounds=1)
    benchmark.extra_info.update({f"{name} px": value for name, value in vertex_errors(rig, again.solution, truth, camera).items()})
