"""Starts by scaled orthography: what they give back, and that they repeat."""

from __future__ import annotations

from itertools import product

import torch

from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.initial import matrix_to_axis_angle, orthographic_poses


def _seen(n_frames: int = 5, n_points: int = 60) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(3)
    random = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    points, rotation = random(n_points, 3) * 0.05, 0.3 * random(n_frames, 3)
    px_per_m, centroid_px = 900 + 50 * random(n_frames), 200 + 20 * random(n_frames, 2)
    turned = (points - points.mean(0)) @ axis_angle_to_matrix(rotation).mT
    pixels = centroid_px[:, None] + px_per_m[:, None, None] * turned[..., :2] * torch.tensor([1.0, -1.0])
    return points, pixels, rotation, centroid_px, px_per_m


def test_pictures_by_scaled_orthography_give_their_poses_back():
    points, pixels, rotation, centroid_px, px_per_m = _seen()
    got = orthographic_poses(points, pixels)
    torch.testing.assert_close(got.rotation, rotation)
    torch.testing.assert_close(got.centroid_px, centroid_px)
    torch.testing.assert_close(got.px_per_m, px_per_m)


def test_turns_by_nothing_and_by_half_a_circle_come_back():
    rotation = torch.tensor([[0.0, 0.0, 0.0], [3.14159, 0.0, 0.0], [0.0, 3.14159, 0.0], [0.0, 0.0, 3.14159]], dtype=torch.float64)
    torch.testing.assert_close(matrix_to_axis_angle(axis_angle_to_matrix(rotation)), rotation, rtol=0, atol=1e-7)


def test_same_bits_whatever_the_memory_held_before():
    points, pixels, *_ = _seen()
    results = []
    for left in product([0, 1], repeat=3):
        heap = [torch.tensor(left, dtype=torch.int32) for _ in range(100)]
        del heap
        results.append(orthographic_poses(points, pixels))
    for other in results[1:]:
        assert torch.equal(other.rotation, results[0].rotation) and torch.equal(other.px_per_m, results[0].px_per_m)
