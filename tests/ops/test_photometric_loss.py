from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from gafcore import photometric_loss
from tests.cases.images import ImageCase, image_cases, small_image_cases
from tests.reference import photometric_loss as reference

CASES = image_cases()
BOTH = [(c, "zeros") for c in CASES + small_image_cases()] + [(c, "valid") for c in CASES]
all_cases = pytest.mark.parametrize(("case", "padding"), BOTH, ids=[f"{c}-{p}" for c, p in BOTH])


def gradients(op, case: ImageCase, padding: str, dtype: torch.dtype = torch.float64):
    image, target, mask = case.inputs(dtype)
    image.requires_grad_()
    l1, ssim = op(image, target, mask, padding=padding)
    return torch.autograd.grad(l1, image, retain_graph=True)[0], torch.autograd.grad(ssim, image)[0]


@all_cases
def test_values_match_reference(case, padding):
    want = reference.photometric_loss(*case.inputs(), padding=padding)
    torch.testing.assert_close(photometric_loss(*case.inputs(), padding=padding), want, rtol=1e-12, atol=1e-13)
    single = photometric_loss(*case.inputs(torch.float32), padding=padding)
    torch.testing.assert_close(tuple(x.double() for x in single), want, rtol=2e-5, atol=2e-6)


@all_cases
def test_gradients_match_reference(case, padding):
    want = gradients(reference.photometric_loss, case, padding)
    torch.testing.assert_close(gradients(photometric_loss, case, padding), want, rtol=1e-9, atol=1e-14)
    for single, exact in zip(gradients(photometric_loss, case, padding, torch.float32), want, strict=True):
        assert (single.double() - exact).abs().max() <= 1e-4 * exact.abs().max() + 1e-9


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_matches_scikit_image(channels):
    image, target, _ = ImageCase("", (37, 45, channels)).inputs()
    want = structural_similarity(
        image.numpy(), target.numpy(), data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert photometric_loss(image, target, padding="valid")[1].item() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "valid"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(padding, masked):
    image, target, mask = ImageCase("", (13, 12, 2), masked).inputs()
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: photometric_loss(x, target, mask, padding=padding), (image,))


def test_equal_images():
    image = torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    l1, ssim = photometric_loss(image, image.detach().clone())
    assert l1 == 0
    assert ssim.item() == pytest.approx(1, abs=1e-6)
    assert torch.autograd.grad(l1 + ssim, image)[0].abs().max() < 1e-5


def test_values_without_gradient_are_the_same_bits():
    image, target, mask = CASES[1].inputs(torch.float32)
    with_gradient = photometric_loss(image.clone().requires_grad_(), target, mask)
    assert all(torch.equal(a, b) for a, b in zip(photometric_loss(image, target, mask), with_gradient, strict=True))


def test_same_bits_at_any_number_of_threads(threads):
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        image, target, mask = ImageCase("", (300, 41, 3), masked=True).inputs(torch.float32)
        image.requires_grad_()
        l1, ssim = photometric_loss(image, target, mask)
        results.append((l1, ssim, *torch.autograd.grad(0.8 * l1 + 0.2 * (1 - ssim), image)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_mask_of_zeros_and_empty_images():
    image = torch.rand(12, 12, 3).requires_grad_()
    for padding in ("zeros", "valid"):
        l1, ssim = photometric_loss(image, torch.rand(12, 12, 3), torch.zeros(12, 12), padding=padding)
        assert (l1.item(), ssim.item()) == (0, 1)
        assert torch.all(torch.autograd.grad(l1 + ssim, image)[0] == 0)
    for shape in ((0, 5, 3), (5, 0, 3), (5, 5, 0), (0, 5, 5, 3)):
        empty = torch.zeros(shape, requires_grad=True)
        l1, ssim = photometric_loss(empty, torch.zeros(shape), padding="valid")
        assert (l1.item(), ssim.item()) == (0, 1)
        assert torch.autograd.grad(l1 + ssim, empty)[0].shape == shape


def test_mask_beyond_reach_of_nan():
    """NaN spoils the pixels whose windows contain it and no others."""
    image, target, _ = ImageCase("", (40, 40, 3)).inputs(torch.float32)
    broken = image.clone()
    broken[3, 3, 0] = torch.nan
    mask = torch.zeros(40, 40)
    mask[20:, 20:] = 1
    broken.requires_grad_()
    got = photometric_loss(broken, target, mask)
    assert got[0].isnan() and got[1].isnan()  # 0 * NaN: a mask is a weight, not a cut
    unmasked_part = torch.autograd.grad(got[1], broken)[0][25:, 25:]
    assert torch.all(unmasked_part.isfinite())


def test_not_contiguous():
    image, target, mask = CASES[1].inputs(torch.float32)
    channels_first = (x.permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (image, target))
    strided = (*channels_first, mask.T.contiguous().T)
    assert all(torch.equal(a, b) for a, b in zip(photometric_loss(*strided), photometric_loss(image, target, mask), strict=True))
    turned = image.permute(2, 0, 1).contiguous().requires_grad_()
    plain = image.clone().requires_grad_()
    a = torch.autograd.grad(sum(photometric_loss(turned.permute(1, 2, 0), target, mask)), turned)[0]
    b = torch.autograd.grad(sum(photometric_loss(plain, target, mask)), plain)[0]
    assert torch.equal(a.permute(1, 2, 0), b)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 25), st.integers(0, 25), st.integers(0, 5)),
    values=st.tuples(*[st.sampled_from([0.0, 1.0, -2.0, 1e-30, 1e20, float("inf"), float("nan")])] * 3),
    masked=st.booleans(),
)
def test_any_number_is_survived(shape, values, masked):
    image, target, mask = (torch.full(s, v) for s, v in zip((shape, shape, shape[:-1]), values, strict=True))
    image.requires_grad_()
    l1, ssim = photometric_loss(image, target, mask if masked else None)
    l1.add(ssim).backward()
    assert image.grad.shape == shape
    if all(abs(v) <= 2 for v in values):
        assert torch.all(image.grad.isfinite())


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_every_instruction_set_gives_the_values(isa):
    program = (
        "import torch; from tests.cases.images import image_cases; from gafcore import photometric_loss\n"
        "for c in image_cases()[:4]:\n"
        "    x, y, m = c.inputs(torch.float32); x.requires_grad_()\n"
        "    l1, ssim = photometric_loss(x, y, m); g, = torch.autograd.grad(ssim, x)\n"
        "    print(l1.item(), ssim.item(), g.square().sum().item())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "GAFCORE_ISA": isa}, capture_output=True, text=True, check=True
    )
    for case, line in zip(CASES, run.stdout.splitlines(), strict=False):
        want = reference.photometric_loss(*case.inputs())
        slope = gradients(reference.photometric_loss, case, "zeros")[1].square().sum()
        assert [float(x) for x in line.split()] == pytest.approx([want[0].item(), want[1].item(), slope.item()], rel=1e-4)


def test_op_is_registered_well():
    image, target, mask = CASES[1].inputs(torch.float32)
    for m, border, needs_gradient in ((mask, 0, True), (None, 5, True), (None, 0, False)):
        torch.library.opcheck(torch.ops.gafcore.photometric_loss.default, (image, target, m, border, needs_gradient))
    _, _, weights, ssim_gradient = torch.ops.gafcore.photometric_loss(image, target, mask, 0, True)
    one = torch.ones(())
    torch.library.opcheck(torch.ops.gafcore.photometric_loss_backward.default, (image, target, mask, weights, ssim_gradient, one, one))


def test_compiles_without_graph_breaks():
    image, target, mask = CASES[1].inputs(torch.float32)

    def loss(x):
        l1, ssim = photometric_loss(x, target, mask)
        return 0.8 * l1 + 0.2 * (1 - ssim)

    a, b = image.clone().requires_grad_(), image.clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(a).backward()
    loss(b).backward()
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image=torch.zeros(4, 4)), r"image must be \[H, W, C\] float32 or float64, got \(4, 4\) float32"),
        (dict(image=torch.zeros(4, 4, 3, dtype=torch.uint8)), r"image must be \[H, W, C\] float32 or float64, got \(4, 4, 3\) uint8"),
        (dict(target=torch.zeros(5, 4, 3)), r"target must be \[H, W, C\] float32 with H = 4, W = 4, C = 3, got \(5, 4, 3\) float32"),
        (dict(target=torch.zeros(4, 4, 3).double()), r"target must be \[H, W, C\] float32.*, got \(4, 4, 3\) float64"),
        (dict(mask=torch.zeros(4, 4, 1)), r"mask must be \[H, W\] float32 with H = 4, W = 4, got \(4, 4, 1\) float32"),
        (dict(padding="same"), r'padding must be "zeros" or "valid", got \'same\''),
        (dict(padding="valid"), r'padding="valid" needs images of at least 11 x 11 pixels, got 4 x 4'),
    ],
)
def test_wrong_input(change, message):
    args = dict(image=torch.zeros(4, 4, 3), target=torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match=message):
        photometric_loss(**{**args, **change})
