from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gafcore.evaluation.metrics import compare, error_picture, mean_values


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    truth = torch.rand(40, 52, 3, generator=g)
    return (truth + 0.1 * torch.randn(truth.shape, generator=g)).clamp(0, 1), truth


def test_figures_of_a_whole_picture():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is the oracle for PSNR and SSIM")
    image, truth = pair()
    got = compare(image, truth)
    a, b = image.double().numpy(), truth.double().numpy()
    assert got["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert got["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-4)
    inner = metrics.structural_similarity(
        a, b, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1]
    assert got["ssim"] == pytest.approx(inner.mean(), abs=0.02)  # scikit-image mirrors at the border, ours continues with zero
    assert set(got) == {"l1", "psnr", "ssim"}


def test_the_head_is_where_the_mask_exceeds_one_half():
    image, truth = pair()
    mask = torch.zeros(40, 52)
    mask[10:30, 5:40] = 0.8
    mask[:4] = 0.4
    got = compare(image, truth, mask)
    inside = (image - truth)[10:30, 5:40]
    assert got["head_l1"] == pytest.approx(float(inside.abs().mean()), rel=1e-5)
    assert got["head_psnr"] == pytest.approx(-10 * math.log10(float(inside.square().mean())), abs=1e-4)
    outside = image.clone()
    outside[35:] = 0  # six pixels below the last row of the mask: beyond SSIM's window
    assert compare(outside, truth, mask)["head_ssim"] == pytest.approx(got["head_ssim"], abs=1e-6)
    assert "head_psnr" not in compare(image, truth, torch.zeros(40, 52))


def test_renders_are_clipped_as_on_a_screen_and_equal_pictures_stay_finite():
    truth = torch.ones(20, 20, 3)
    assert compare(truth + 0.5, truth) == pytest.approx({"l1": 0, "psnr": 120, "ssim": 1}, abs=1e-5)


def test_lpips_where_given():
    image, truth = pair()
    got = compare(image, truth, torch.ones(40, 52), lambda a, b: (a - b).abs().mean((1, 2, 3)) * 2)
    assert got["lpips"] == pytest.approx(2 * got["l1"], rel=1e-5)
    assert "head_lpips" not in got


def test_means_are_over_the_rows_that_have_a_figure():
    assert mean_values([{"a": 1.0, "b": 4.0}, {"a": 2.0}]) == {"a": 1.5, "b": 4.0}
    assert mean_values([]) == {}


def test_error_picture_runs_from_white_to_black():
    truth = torch.zeros(1, 4, 3)
    image = torch.tensor([0.0, 0.125, 0.25, 0.9])[None, :, None].expand(1, 4, 3)
    got = error_picture(image, truth)[0]
    torch.testing.assert_close(got, torch.tensor([[1.0, 1, 1], [1, 0.5, 0], [0, 0, 0], [0, 0, 0]]))
