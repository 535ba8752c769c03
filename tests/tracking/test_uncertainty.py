"""The reported uncertainty of the focal length, against the scatter of the estimates over repeated clips."""

from __future__ import annotations

from dataclasses import replace

import torch

from gafcore.tracking.config import SolverConfig
from gafcore.tracking.solve import solve
from tests.tracking.toy import toy_detections, toy_motion, toy_rig


def test_sigma_is_the_scatter_over_detectors_with_a_bias_of_their_own():
    """Each landmark is off by the same pixels in all frames: what frames share does not average away."""
    rig, n = toy_rig(), 8
    motion = toy_motion(rig, 16, distance_m=0.45)
    detections = toy_detections(rig, motion, 700.0)
    focal, sigma = [], []
    for seed in range(n):
        bias = 2.5 * torch.randn(1, 478, 2, generator=torch.Generator().manual_seed(seed))
        found = solve(replace(detections, landmarks=detections.landmarks + bias), rig, SolverConfig(focal_prior=1.6))
        focal.append(found.focal_px)
        sigma.append(found.focal_sigma_px)
    scatter = torch.tensor(focal).std().item()
    assert abs(torch.tensor(focal).mean().item() - 700) < 2 * scatter
    assert 0.5 * scatter < torch.tensor(sigma).mean().item() < 2.5 * scatter  # a scatter of eight is itself uncertain by a quarter
