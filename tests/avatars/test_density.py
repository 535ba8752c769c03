from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore.avatars.density import DensityConfig, DensityStats, accumulate, densify_and_prune, empty_stats, is_round, prunable

N = 6


def tensors(n: int = N, scale: float = 0.1) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "means": torch.randn(n, 3, generator=g),
        "quats": torch.randn(n, 4, generator=g),
        "log_scales": torch.full((n, 3), math.log(scale)),
        "opacity_logits": torch.zeros(n),
        "sh_dc": torch.randn(n, 1, 3, generator=g),
    }


def run(values, binding, grads, sizes=None, seed=0, **config):
    stats = DensityStats(torch.tensor(grads), torch.ones(len(grads)))
    sizes = torch.full((10,), 0.01) if sizes is None else sizes
    return densify_and_prune(values, torch.tensor(binding), sizes, stats, DensityConfig(**config), torch.Generator().manual_seed(seed))


def test_gradients_are_in_half_images_and_only_visible_views_count():
    grad = torch.tensor([[[3e-6, 4e-6], [1.0, 1.0]], [[0.0, 0.0], [0.0, 2e-6]]])
    visible = torch.tensor([[True, False], [True, True]])
    stats = accumulate(empty_stats(2), grad, visible, width=200, height=100)
    torch.testing.assert_close(stats.grad_sum, torch.tensor([math.hypot(3e-4, 2e-4), 1e-4]))
    assert stats.views.tolist() == [2, 1]


def test_nothing_moves_below_the_threshold():
    values = tensors()
    step = run(values, list(range(N)), [1.9e-4] * N)
    assert (step.n_cloned, step.n_split, step.n_pruned) == (0, 0, 0)
    for name, x in values.items():
        assert torch.equal(step.tensors[name], x)
    assert not step.fresh.any()


def test_small_ones_are_cloned_in_place_with_their_binding():
    values = tensors(scale=0.5)  # 0.5 x 0.01 m is below 0.01 m
    step = run(values, [0, 1, 2, 3, 4, 5], [0, 3e-4, 0, 0, 5e-4, 0])
    assert step.n_cloned == 2 and step.n_split == 0
    assert step.tensors["binding"].tolist() == [0, 1, 2, 3, 4, 5, 1, 4]
    assert step.fresh.tolist() == [False] * 6 + [True] * 2
    assert torch.equal(step.tensors["means"][6:], values["means"][[1, 4]])


def test_large_ones_are_split_into_two_smaller_about_their_mean():
    values = tensors(scale=2.0)  # 2 x 0.01 m is above 0.01 m
    step = run(values, [0, 1, 2, 3, 4, 5], [0, 3e-4, 0, 0, 0, 0])
    assert step.n_split == 1
    assert step.tensors["binding"].tolist() == [0, 2, 3, 4, 5, 1, 1]
    torch.testing.assert_close(step.tensors["log_scales"][-1].exp(), torch.full((3,), 2.0 / 1.6))
    assert not torch.equal(step.tensors["means"][-1], step.tensors["means"][-2])


def test_split_noise_has_the_local_covariance():
    n = 20_000
    values = {name: x[:1].expand(n, *x.shape[1:]).clone() for name, x in tensors().items()}
    values["log_scales"][:] = torch.tensor([0.5, 2.0, 4.0]).log()
    w, x, y, z = torch.nn.functional.normalize(values["quats"][0].double(), dim=0).tolist()
    rotation = torch.tensor(  # written out from the definition of a unit quaternion
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )
    want = rotation @ torch.diag(torch.tensor([0.25, 4.0, 16.0])) @ rotation.T
    step = run(values, [0] * n, [1.0] * n, sizes=torch.ones(1), max_gaussians=10**6)
    offsets = (step.tensors["means"] - values["means"][0]).double()
    torch.testing.assert_close(offsets.T @ offsets / (2 * n), want.double(), atol=0.3, rtol=0.05)


def test_faint_ones_go_but_never_a_triangles_last():
    values = tensors()
    values["opacity_logits"] = torch.tensor([-8.0, 0.0, -8.0, -7.0, -8.0, -9.0])
    step = run(values, [0, 0, 1, 1, 2, 3], [0.0] * N)
    assert step.n_pruned == 2
    assert step.source.tolist() == [1, 3, 4, 5]  # the most opaque of triangle 1, the only ones of 2 and 3


def test_the_cap_takes_the_largest_gradients_first():
    step = run(tensors(), list(range(N)), [3e-4, 9e-4, 4e-4, 8e-4, 5e-4, 7e-4], max_gaussians=N + 2)
    assert step.source.tolist() == [*range(N), 1, 3]
    assert run(tensors(), list(range(N)), [1.0] * N, max_gaussians=3).source.shape[0] == N


def test_same_seed_same_bits():
    a, b, c = (run(tensors(scale=5.0), list(range(N)), [1.0] * N, seed=s) for s in (3, 3, 4))
    assert torch.equal(a.tensors["means"], b.tensors["means"])
    assert not torch.equal(a.tensors["means"], c.tensors["means"])


@pytest.mark.parametrize(("iteration", "wanted"), [(299, False), (300, True), (450, False), (4800, True), (5100, False)])
def test_rounds(iteration, wanted):
    assert is_round(DensityConfig(), iteration, 6000) is wanted


def test_no_round_in_the_last_sixth_of_a_short_run():
    assert [i for i in range(1, 1201) if is_round(DensityConfig(), i, 1200)] == [300, 600, 900]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 30))
def test_no_triangle_is_ever_emptied(data, n):
    binding = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    logits = data.draw(st.lists(st.floats(-20, 5, width=32), min_size=n, max_size=n))
    grads = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n))
    values = tensors(n, scale=data.draw(st.sampled_from([0.1, 10.0])))
    values["opacity_logits"] = torch.tensor(logits)
    step = run(values, binding, grads, max_gaussians=data.draw(st.integers(1, 60)))
    assert set(step.tensors["binding"].tolist()) == set(binding)
    assert all(x.shape[0] == step.source.shape[0] for x in step.tensors.values())


def test_prunable_keeps_the_more_opaque_of_a_faint_pair():
    got = prunable(torch.tensor([5, 5, 7]), torch.tensor([-9.0, -8.0, 2.0]), 0.005, 8)
    assert got.tolist() == [True, False, False]
