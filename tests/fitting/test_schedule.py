from __future__ import annotations

import pytest
import torch

from gafcore.errors import InputError
from gafcore.fitting.config import FitConfig, LearningRates, to_json
from gafcore.fitting.schedule import background_at, frame_at, generator, means_rate, sh_degree_at


def test_defaults_are_the_papers():
    c = FitConfig()
    assert c.iterations == 6000
    assert (c.lr.log_scales, c.lr.quats, c.lr.colors, c.lr.opacities) == (1.7e-2, 1e-3, 2.5e-3, 5e-2)
    assert (c.lr.translation, c.lr.pose, c.lr.expr) == (1e-6, 1e-5, 1e-3)
    assert (c.density.every, c.density.until, c.density.grad_threshold, c.density.prune_opacity) == (300, 5000, 2e-4, 0.005)
    assert (c.loss.l1, c.loss.ssim, c.loss.lpips, c.loss.position, c.loss.scale) == (0.8, 0.2, 0.1, 0.01, 1.0)
    assert (c.loss.position_limit, c.loss.scale_limit) == (1.0, 0.6)


def test_every_epoch_shows_every_frame_once_in_a_new_order():
    frames = (3, 5, 8, 13, 21, 34)
    order = [frame_at(FitConfig(), i, frames) for i in range(1, 13)]
    assert sorted(order[:6]) == sorted(order[6:]) == list(frames)
    assert order[:6] != order[6:]
    assert order != [frame_at(FitConfig(seed=1), i, frames) for i in range(1, 13)]


def test_draws_depend_on_seed_purpose_and_iteration_only():
    def draw(seed: int, purpose: str, iteration: int) -> float:
        return float(torch.rand(1, generator=generator(FitConfig(seed=seed), purpose, iteration)))

    assert draw(1, "density", 5) == draw(1, "density", 5)
    assert len({draw(1, "density", 5), draw(2, "density", 5), draw(1, "prior", 5), draw(1, "density", 6)}) == 4


def test_backgrounds():
    assert background_at(FitConfig(background="white"), 1).tolist() == [1, 1, 1]
    assert background_at(FitConfig(background="black"), 1).tolist() == [0, 0, 0]
    first, second = (background_at(FitConfig(background="random"), i) for i in (1, 2))
    assert not torch.equal(first, second) and float(torch.stack([first, second]).min()) >= 0


def test_means_rate_is_log_linear():
    c = FitConfig(iterations=101, lr=LearningRates(means=1e-2, means_last=1e-4))
    assert [means_rate(c, i) for i in (1, 51, 101)] == pytest.approx([1e-2, 1e-3, 1e-4])
    assert means_rate(FitConfig(lr=LearningRates(means=0.0)), 7) == 0


def test_degree_grows():
    c = FitConfig(sh_degree=2, sh_every=10)
    assert [sh_degree_at(c, i) for i in (1, 10, 11, 20, 21, 99)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"sh_degree": 4}, "sh_degree must be 0 to 3, got 4"),
        ({"init_opacity": 1.0}, "init_opacity must lie strictly between 0 and 1, got 1.0"),
        ({"sh_every": 0}, "sh_every must be at least 1, got 0"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(InputError, match=message):
        FitConfig(**values)


def test_json_leaves_out_what_does_not_touch_the_result():
    flat = to_json(FitConfig(checkpoint_every=5, tensorboard=True))
    assert flat == to_json(FitConfig())
    assert flat["density.every"] == 300 and flat["lr.expr"] == 1e-3 and flat["seed"] == 0
