"""The solver finds the parameters that made the landmarks, on a rig small enough to know them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gafcore.captures.synthetic.motion import random_identity, random_motion
from gafcore.rigs import load_rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.config import SolverConfig
from gafcore.tracking.solve import key_frames, solve
from tests.tracking.toy import toy_detections, toy_motion, toy_rig

FOCAL = 900.0


@pytest.fixture(scope="module")
def rig():
    return toy_rig()


def _vertex_error_mm(rig, got, want):
    return 1e3 * (rig.vertices(got.map(lambda _, x: x.double())) - rig.vertices(want)).norm(dim=-1)


def _without(detections, missing):
    found = detections.found.clone()
    found[missing] = False
    landmarks = detections.landmarks.clone()
    landmarks[missing] = float("nan")
    return replace(detections, found=found, landmarks=landmarks)


def test_parameters_are_recovered(rig):
    motion = toy_motion(rig, 40)
    got = solve(toy_detections(rig, motion, FOCAL), rig, focal_px=FOCAL)
    assert got.focal_px == pytest.approx(FOCAL)
    assert got.focal_sigma_px is None
    torch.testing.assert_close(got.params.rotation.double(), motion.rotation, rtol=0, atol=4e-3)
    torch.testing.assert_close(got.params.translation.double(), motion.translation, rtol=0, atol=1e-3)
    torch.testing.assert_close(got.params.expr.double(), motion.expr, rtol=0, atol=0.03)
    torch.testing.assert_close(got.params.shape.double(), motion.shape, rtol=0, atol=0.05)
    torch.testing.assert_close(got.params.eyes_pose.double(), motion.eyes_pose, rtol=0, atol=0.06)
    assert _vertex_error_mm(rig, got.params, motion).median() < 0.6  # depth is the least certain
    assert got.errors_px[:, got.held_out].median() < 0.2


def test_noise_is_averaged_away(rig):
    motion = toy_motion(rig, 40)
    got = solve(toy_detections(rig, motion, FOCAL, noise_px=1.5), rig, focal_px=FOCAL)
    error = torch.linalg.norm(got.params.rotation.double() - motion.rotation, dim=-1)
    assert error.median() < 0.01
    assert got.errors_px[:, got.held_out].median() == pytest.approx(1.5 * 1.18, rel=0.25)  # the median of a Rayleigh distribution


def test_focal_length_is_estimated_with_its_uncertainty(rig):
    motion = toy_motion(rig, 60, distance_m=0.45)
    got = solve(toy_detections(rig, motion, 700.0, noise_px=0.5), rig, SolverConfig(focal_prior=1.6))
    assert got.focal_sigma_px is not None
    assert abs(got.focal_px - 700) < 0.06 * 700
    assert 0 < got.focal_sigma_px < 0.4 * got.focal_px


def test_outliers_are_resisted(rig):
    motion = toy_motion(rig, 30)
    detections = toy_detections(rig, motion, FOCAL)
    landmarks = detections.landmarks.clone()
    landmarks[:, 7:150:10] += torch.tensor([25.0, -15.0])
    got = solve(replace(detections, landmarks=landmarks), rig, focal_px=FOCAL)
    assert _vertex_error_mm(rig, got.params, motion).median() < 2.0


def test_a_step_that_would_leave_the_bounds_is_cut_short_there_and_not_refused(rig, monkeypatch):
    """Half of the expressions are below 0 in truth and start inside; the bounds are all but hard."""
    motion, costs = toy_motion(rig, 40), []
    odd = torch.arange(rig.n_expr) % 2
    detections = toy_detections(rig, replace(motion, expr=odd * motion.expr - 0.2 * (1 - odd)), FOCAL, noise_px=1.5)
    names = tuple(f"{name.replace('_L', 'Left').replace('_R', 'Right')}" for name in rig.expression_names)
    detections = replace(detections, score_names=names, scores=torch.full((40, len(names)), 0.5))
    module = sys.modules["gafcore.tracking.least_squares"]
    monkeypatch.setattr(module, "cost", lambda *args, cost=module.cost: costs.append(cost(*args)) or costs[-1])
    config = SolverConfig(key_iterations=4, iterations=4, bounds_sigma=0.002)
    got = solve(detections, rig, config, focal_px=FOCAL)
    assert got.steps == (4, 4)
    assert len(costs) == 10  # where each stage starts, and one for every step
    best = solve(detections, rig, replace(config, key_iterations=60, iterations=60), focal_px=FOCAL)
    assert got.cost == pytest.approx(best.cost, rel=0.003)
    assert got.params.expr.min() > -0.02


def test_gaps_are_bridged(rig):
    motion = toy_motion(rig, 40)
    missing = [0, 17, 18, 19, 20, 39]
    got = solve(_without(toy_detections(rig, motion, FOCAL), missing), rig, focal_px=FOCAL)
    assert torch.isfinite(got.params.rotation).all()
    assert torch.isnan(got.errors_px[missing]).all()
    assert torch.isfinite(got.errors_px[16]).all()
    inner = [17, 18, 19, 20]
    torch.testing.assert_close(got.params.rotation[inner].double(), motion.rotation[inner], rtol=0, atol=0.05)
    torch.testing.assert_close(got.params.rotation[0], got.params.rotation[1], rtol=0, atol=0.02)


def test_smoothness_stops_at_a_cut(rig):
    motion = toy_motion(rig, 20)
    jump = motion.rotation.clone()
    jump[10:] += torch.tensor([0.0, 0.5, 0.0])
    motion = replace(motion, rotation=jump)
    detections = toy_detections(rig, motion, FOCAL)
    through = solve(detections, rig, focal_px=FOCAL)
    cut = solve(replace(detections, cuts=(10,)), rig, focal_px=FOCAL)
    error = lambda s: (s.params.rotation[9:11].double() - motion.rotation[9:11]).abs().max()  # noqa: E731
    assert error(cut) < 5e-3
    assert error(cut) < error(through)


def test_one_frame(rig):
    motion = toy_motion(rig, 1)
    got = solve(toy_detections(rig, motion, FOCAL), rig, focal_px=FOCAL)
    turned = axis_angle_to_matrix(got.params.rotation.double()).mT @ axis_angle_to_matrix(motion.rotation)
    angle = torch.arccos(((turned.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
    assert angle.item() < 0.05
    assert got.errors_px.median() < 1.0


def test_smaller_faces_give_the_same_rig(rig):
    """Noise and spread are stated on the face, so a clip at a quarter of the size is the same problem."""
    motion = toy_motion(rig, 12)
    large = solve(toy_detections(rig, motion, 4 * FOCAL, size=(2048, 1920)), rig, focal_px=4 * FOCAL)
    small = solve(toy_detections(rig, motion, FOCAL), rig, focal_px=FOCAL)
    torch.testing.assert_close(large.params.shape, small.params.shape, rtol=0, atol=5e-3)
    torch.testing.assert_close(large.params.rotation, small.params.rotation, rtol=0, atol=2e-3)


def test_threads_are_restored(rig, threads):
    threads(2)
    solve(toy_detections(rig, toy_motion(rig, 3), FOCAL), rig)
    assert torch.get_num_threads() == 2


def test_no_face_is_refused(rig):
    detections = toy_detections(rig, toy_motion(rig, 2))
    with pytest.raises(ValueError, match="no frame shows a face"):
        solve(_without(detections, [0, 1]), rig)


def test_key_frames_are_even_and_show_the_face():
    found = torch.ones(100, dtype=torch.bool)
    found[:20] = False
    keys = key_frames(found, 5)
    assert keys.tolist() == [20, 40, 60, 79, 99]
    assert key_frames(found[:25], 40).tolist() == [20, 21, 22, 23, 24]


def procedural_fit() -> str:
    """What a fit of a rig as large as real ones comes to, all bits of it: with the toy's matrices threads make no difference."""
    rig, heap = load_rig("procedural"), [torch.full((3,), i % 3, dtype=torch.int32) for i in range(5000)]
    motion = random_motion(rig, random_identity(rig, 0), 0, 24, 30.0)
    motion = replace(motion, translation=motion.translation - torch.tensor([0.0, 0.0, 0.8]))
    detections = toy_detections(rig, motion, FOCAL, noise_px=0.5)
    del heap  # what is then found in uninitialised memory differs from place to place
    got = solve(detections, rig, SolverConfig(key_iterations=2, iterations=1))
    numbers = (got.theta, got.shared, got.errors_px, torch.tensor([got.focal_px, got.focal_sigma_px, got.cost]))
    return hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in numbers)).hexdigest()


def test_same_bits_at_any_thread_count(monkeypatch):
    """New threads begin with OMP_NUM_THREADS, which a process reads once: hence another process."""
    root = Path(__file__).resolve().parents[2]
    env = dict(os.environ, OMP_NUM_THREADS="2", PYTHONPATH=os.pathsep.join([str(root), *sys.path]))
    code = "from tests.tracking.test_solve import procedural_fit; print(procedural_fit())"
    other = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=True)
    for cores in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert procedural_fit() == other.stdout.split()[-1]
