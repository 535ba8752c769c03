"""DDIM with an oracle that knows the noise is exact from any timestep; against diffusers' scheduler where both apply."""

from __future__ import annotations

import pytest
import torch

from gafcore.diffusion.schedule import NoiseSchedule, strided_timesteps


def stable_diffusion(prediction="epsilon") -> NoiseSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return NoiseSchedule(torch.cumprod(1 - betas, 0), prediction)


@pytest.mark.parametrize("start, want", [(45, [45, 25, 5]), (40, [40, 20]), (20, [20]), (19, [19]), (1, [1]), (0, [0])])
def test_strides(start, want):
    assert strided_timesteps(start) == want
    assert len(want) == max(1, -(-start // 20))


def test_full_schedule_takes_fifty_steps():
    steps = strided_timesteps(999)
    assert len(steps) == 50 and steps[0] == 999 and steps[-1] == 19
    with pytest.raises(ValueError, match="got -1 and 20"):
        strided_timesteps(-1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("start", [1, 19, 20, 40, 333, 500, 980, 999])
def test_an_oracle_gives_back_the_picture(prediction, start):
    schedule = stable_diffusion(prediction)
    g = torch.Generator().manual_seed(start)
    clean, noise = (torch.randn(4, 3, 8, 8, generator=g, dtype=torch.float64) for _ in range(2))
    x = schedule.add_noise(clean, noise, start)
    steps = strided_timesteps(start)
    for t, to in zip(steps, [*steps[1:], None], strict=True):
        # The oracle knows the picture, and reads the noise off what it is given: it would not notice an error that it made itself.
        signal = schedule.alphas_cumprod[t].sqrt()
        believed = (x - signal * clean) / (1 - schedule.alphas_cumprod[t]).sqrt()
        x = schedule.step(schedule.target(clean, believed, t), x, t, to)
    torch.testing.assert_close(x, clean, atol=1e-9, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_steps_equal_diffusers(prediction):
    diffusers = pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(50)
    schedule = NoiseSchedule.of(scheduler)
    x, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for t, to in [(901, 881), (333, 313), (19, None)]:
        want = scheduler.step(output, t, x).prev_sample
        torch.testing.assert_close(schedule.step(output, x, t, to), want, atol=2e-5, rtol=2e-5)


def test_noise_and_velocity_equal_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction")
    schedule = NoiseSchedule.of(scheduler)
    clean, noise, t = torch.randn(3, 4, 5, 6, 6), torch.randn(3, 4, 5, 6, 6), torch.tensor([3, 500, 999])
    torch.testing.assert_close(schedule.add_noise(clean, noise, t), scheduler.add_noise(clean, noise, t))
    torch.testing.assert_close(schedule.target(clean, noise, t), scheduler.get_velocity(clean, noise, t))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_snr_weight_is_one_weight_of_the_clean_picture(prediction):
    """Whatever is predicted, weight times squared error of the output is min(snr, gamma) times squared error of the picture."""
    schedule = stable_diffusion(prediction)
    t = torch.tensor([1, 100, 500, 950])
    clean, noise, wrong = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    x = schedule.add_noise(clean, noise, t)
    output = schedule.target(clean, noise, t) + wrong
    picture = schedule.split(output, x, t)[0]
    a = schedule.alphas_cumprod[t]
    want = (a / (1 - a)).clamp(max=5.0) * (picture - clean).square().mean(1)
    torch.testing.assert_close(schedule.snr_weight(t, 5.0).double() * wrong.square().mean(1), want, atol=1e-5, rtol=1e-5)


def test_epsilon_needs_signal_at_the_end():
    with pytest.raises(ValueError, match="zero signal"):
        NoiseSchedule(torch.tensor([0.9, 0.0], dtype=torch.float64))
    exact = NoiseSchedule(torch.tensor([0.9, 0.0], dtype=torch.float64), "sample")
    x = torch.randn(3)
    assert torch.equal(exact.step(torch.ones(3), x, 1, None), torch.ones(3))
