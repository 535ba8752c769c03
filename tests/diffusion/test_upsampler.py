"""The latent upsampler: saving, ten steps, an oracle, what it refuses."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.diffusion.schedule import NoiseSchedule
from gafcore.diffusion.upsampler import LatentUpsampler, upsample
from tests.diffusion.conftest import UPSAMPLER

SCHEDULE = NoiseSchedule(torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0))


@pytest.fixture
def model():
    torch.manual_seed(2)
    return LatentUpsampler(**UPSAMPLER).eval()


def test_saved_and_loaded_bit_by_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = LatentUpsampler.from_pretrained(tmp_path)
    args = (torch.randn(2, 4, 16, 16), torch.tensor(5), torch.randn(2, 4, 8, 8), torch.tensor([10, 20]))
    with torch.no_grad():
        assert torch.equal(again(*args), model(*args))


def test_low_latents_and_noise_level_matter(model):
    args = [torch.randn(1, 4, 16, 16), torch.tensor(5), torch.randn(1, 4, 8, 8), torch.tensor(10)]
    with torch.no_grad():
        out = model(*args)
        for i, changed in ((1, torch.tensor(600)), (2, args[2] + 1), (3, torch.tensor(200))):
            assert float((model(*args[:i], changed, *args[i + 1 :]) - out).abs().max()) > 1e-4


def test_an_oracle_is_reached_in_ten_steps():
    truth, calls = torch.randn(2, 4, 16, 16, dtype=torch.float64), []

    class Oracle:
        config = type("C", (), {"max_noise_level": 100})

        def __call__(self, x, t, low, level):
            calls.append((int(t), int(level)))
            a = SCHEDULE.alphas_cumprod[t]
            return (x - a.sqrt() * truth) / (1 - a).sqrt()

    low, noise, low_noise = (torch.randn(s, dtype=torch.float64) for s in ((2, 4, 8, 8), (2, 4, 16, 16), (2, 4, 8, 8)))
    out = upsample(Oracle(), SCHEDULE, low, noise, low_noise)
    torch.testing.assert_close(out, truth, atol=1e-9, rtol=0)
    assert calls == [(t, 50) for t in range(999, 0, -100)]


def test_refusals(model):
    low, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 16, 16)
    with pytest.raises(ValueError, match=r"noise_level must be in 0\.\.250, as the upsampler was trained, got 300"):
        upsample(model, SCHEDULE, low, noise, low, noise_level=300)
    with pytest.raises(ValueError, match="steps must be in"):
        upsample(model, SCHEDULE, low, noise, low, steps=0)
    with pytest.raises(ValueError, match="twice the height and width"):
        model(low, torch.tensor(1), low, torch.tensor(1))
