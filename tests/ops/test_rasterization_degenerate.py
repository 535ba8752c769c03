"""rasterization on input that nobody should give but somebody will, and the messages that say what is wrong."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore import rasterization
from tests.cases import rasterization as cases

EXTREME = [0.0, -0.0, 1e-45, -1e-30, 1e-6, 1.0, -1.0, 1e6, -1e20, 3e38, math.inf, -math.inf, math.nan]


def render(tensors, scene, **options):
    return cases.Scene("", {}, scene.Ks, scene.width, scene.height, {**scene.options, **options}).call(rasterization, tensors)


def finite_gradients(image, tensors):
    image.square().mean().backward()
    return {k: bool(v.grad.isfinite().all()) for k, v in tensors.items() if v.grad is not None}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_extreme_numbers_are_left_out_or_drawn_but_never_spread(data):
    scene = cases.scene(n=7, cameras=1, width=40, height=33, sh_degree=1)
    tensors = scene.tensors(torch.float32)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        flat = tensors[name].view(-1)
        for _ in range(data.draw(st.integers(0, 2))):
            flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(st.sampled_from(EXTREME))
    for v in tensors.values():
        v.requires_grad_()
    image, alpha, meta = render(tensors, scene, rasterize_mode=data.draw(st.sampled_from(["classic", "antialiased"])))
    assert alpha.isfinite().all()
    assert ((alpha >= -1e-6) & (alpha <= 1)).all()
    assert not image.isnan().any()
    assert 0 <= meta["n_nonfinite"] <= 7
    image.clamp(-10, 10).mean().backward()
    for name, v in tensors.items():
        assert not v.grad[(meta["radii"][0, :, 0] == 0)].isnan().any() if name in cases.NAMES[:5] else True


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "options", [dict(sh_degree=2), dict(channels=5), dict(channels=4, render_mode="RGB+D"), dict(channels=9, per_camera=True)], ids=str
)
def test_one_bad_gaussian_is_counted_and_does_no_harm(name, value, options):
    check_bad_gaussian(cases.scene(n=9, cameras=1, **options), name, 0, value)


@pytest.mark.parametrize("options", [dict(), dict(channels=5)], ids=str)
def test_scales_too_large_for_a_determinant_count_as_not_finite(options):
    check_bad_gaussian(cases.scene(n=9, cameras=1, **options), "scales", slice(None), 1e9)


def check_bad_gaussian(scene, name, column, value):
    bad, good = scene.tensors(torch.float32), scene.tensors(torch.float32)
    bad[name].reshape(9, -1)[4, column] = value
    gaussians = 1 if bad["opacities"].dim() == 2 else 0
    for k in cases.NAMES[:5]:
        good[k] = torch.cat([good[k].narrow(gaussians, 0, 4), good[k].narrow(gaussians, 5, 4)], gaussians)
    for v in bad.values():
        v.requires_grad_()
    image, _, meta = render(bad, scene)
    torch.testing.assert_close(image, render(good, scene)[0])
    assert meta["n_nonfinite"] == 1
    assert meta["radii"][0, 4].tolist() == [0, 0]
    assert all(finite_gradients(image, bad).values())


def test_no_gaussians_give_the_background():
    scene = cases.scene(n=0, cameras=2)
    tensors = scene.tensors(torch.float32, grad=True)
    image, alpha, meta = render(tensors, scene)
    assert (image == tensors["backgrounds"][:, None, None]).all()
    assert (alpha == 0).all()
    assert meta["n_pairs"] == 0
    image.sum().backward()
    torch.testing.assert_close(tensors["backgrounds"].grad, torch.full((2, 3), float(scene.width * scene.height)))
    assert tensors["viewmats"].grad.abs().sum() == 0


def test_no_cameras_give_no_images():
    scene = cases.scene(n=4, cameras=1)
    tensors = scene.tensors(torch.float32)
    image, alpha, _ = rasterization(
        *(tensors[k] for k in cases.NAMES[:5]), tensors["viewmats"][:0], scene.Ks[:0].float(), scene.width, scene.height
    )
    assert image.shape == (0, scene.height, scene.width, 3)
    assert alpha.shape == (0, scene.height, scene.width, 1)


def test_no_cameras_give_no_gradient():
    scene = cases.scene(n=40000, cameras=1)  # large enough for memory that was used before
    tensors = scene.tensors(torch.float32, grad=True)
    render(tensors, scene)[0].sum().backward()
    for v in tensors.values():
        v.grad = None
    image, alpha, meta = rasterization(
        *(tensors[k] for k in cases.NAMES[:5]), tensors["viewmats"][:0], scene.Ks[:0].float(), scene.width, scene.height
    )
    (image.sum() + alpha.sum() + meta["depths"].sum()).backward()
    for name in cases.NAMES:
        assert tensors[name].grad.abs().sum() == 0, name


def test_a_second_derivative_is_refused():
    scene = cases.scene(n=9, cameras=1)
    tensors = scene.tensors(grad=True)
    loss = render(tensors, scene)[0].square().sum()
    gradient = torch.autograd.grad(loss, tensors["means"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_zero_scales_are_points_with_the_blur_alone():
    scene = cases.scene(n=5, cameras=1)
    tensors = scene.tensors(torch.float32)
    tensors["scales"].zero_()
    for v in tensors.values():
        v.requires_grad_()
    image, alpha, meta = render(tensors, scene)
    assert alpha.max() > 0.05
    assert (meta["radii"].amax() <= 2) and (meta["radii"].amax() > 0)
    assert all(finite_gradients(image, tensors).values())
    faded = render(tensors, scene, rasterize_mode="antialiased")[1]
    assert (faded == 0).all()  # a point has no mass


def test_behind_and_on_the_camera_plane_is_left_out():
    scene = cases.scene(n=3, cameras=1)
    tensors = scene.tensors(torch.float32)
    tensors["viewmats"][:] = torch.eye(4)
    tensors["means"][:] = torch.tensor([[0.0, 0, 0], [0.1, 0, -1], [0, 0, 0.005]])
    _image, alpha, meta = render(tensors, scene)
    assert (alpha == 0).all()
    assert meta["n_visible"] == 0
    assert meta["n_nonfinite"] == 0
    assert (render(tensors, scene, near_plane=0.001)[1] > 0).any()


def test_radius_clip_and_planes_leave_out():
    scene = cases.scene(n=40, cameras=1, scale=0.02)
    tensors = scene.tensors(torch.float32)
    _, _, meta = render(tensors, scene)
    radius, depth = meta["radii"].amax(-1)[0], meta["depths"][0]
    clip, far = float(radius[radius > 0].float().median()), float(depth[depth > 0].median())
    assert (render(tensors, scene, radius_clip=clip)[2]["radii"].amax(-1)[0] > 0).equal(radius > clip)
    assert (render(tensors, scene, far_plane=far)[2]["radii"].amax(-1)[0] > 0).equal((radius > 0) & (depth <= far))


def test_one_splat_over_thousands_of_tiles_costs_pairs_and_no_more():
    scene = cases.scene(n=1, cameras=1, width=1300, height=1100, scale=20.0, spread=0.0)
    _, alpha, meta = render(scene.tensors(torch.float32), scene)
    assert meta["n_pairs"] == meta["tile_width"] * meta["tile_height"]
    assert (alpha > 0).all()


def test_a_needle_touches_the_tiles_on_its_line_only():
    scene = cases.scene(n=1, cameras=1, width=1024, height=1024, spread=0.0)
    tensors = scene.tensors(torch.float32)
    tensors["viewmats"][:] = torch.eye(4)
    tensors["viewmats"][:, 2, 3] = 1
    tensors["means"].zero_()
    tensors["scales"][:] = torch.tensor([[1.0, 1e-5, 1e-5]])
    tensors["quats"][:] = torch.tensor([[math.cos(math.pi / 8), 0, 0, math.sin(math.pi / 8)]])  # 45 degrees in the image
    _, _, meta = render(tensors, scene)
    assert meta["tile_width"] <= meta["n_pairs"] <= 3 * meta["tile_width"]


def test_non_contiguous_input_and_float32_views():
    scene = cases.scene(n=11, cameras=2)
    tensors = scene.tensors(torch.float32)
    strided = {k: torch.stack([v, v + 1], -1)[..., 0] for k, v in tensors.items()}
    assert not strided["means"].is_contiguous()
    assert torch.equal(render(strided, scene)[0], render(tensors, scene)[0])


def test_half_precision_harmonics_are_as_good_as_their_values():
    scene = cases.scene(n=11, cameras=2, sh_degree=2)
    tensors = scene.tensors(torch.float32)
    half = tensors["colors"].half()
    got, want = (render({**tensors, "colors": c}, scene)[0] for c in (half, half.float()))
    assert torch.equal(got, want)
    with pytest.raises(ValueError, match=r"colors must be \[N, D\] float32 with N = 11, got \(11, 27\) float16"):
        rasterization(*(tensors[k] for k in cases.NAMES[:4]), half.flatten(1), tensors["viewmats"], scene.Ks.float(), 8, 8)


def test_mixed_shared_and_per_camera_input():
    scene = cases.scene(n=11, cameras=2)
    tensors = scene.tensors(torch.float32)
    mixed = {**tensors, "means": torch.stack([tensors["means"], tensors["means"] + 0.05])}
    image = render(mixed, scene)[0]
    moved = render({**tensors, "means": tensors["means"] + 0.05}, scene)[0]
    assert torch.equal(image[0], render(tensors, scene)[0][0])
    assert torch.equal(image[1], moved[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(means=torch.zeros(10, 4)), r"means must be \[N, 3\] float32, got \(10, 4\) float32"),
        (dict(quats=torch.zeros(9, 4)), r"quats must be \[N, 4\] float32 with N = 10, got \(9, 4\) float32"),
        (dict(scales=torch.zeros(10, 3).double()), r"scales must be \[N, 3\] float32 with N = 10, got \(10, 3\) float64"),
        (dict(opacities=torch.zeros(10, 1)), r"opacities must be \[C, N\] float32"),
        (dict(colors=torch.zeros(10, 0)), r"colors must have at least one channel, got \(10, 0\) float32"),
        (dict(colors=torch.zeros(10)), r"colors must be \[N, D\] float32"),
        (dict(viewmats=torch.zeros(4, 4)), r"viewmats must be \[C, 4, 4\] float32 or float64, got \(4, 4\) float32"),
        (dict(Ks=torch.zeros(2, 3, 3)), r"Ks must be \[C, 3, 3\] float32 with C = 1, got \(2, 3, 3\) float32"),
        (dict(eps2d=torch.zeros(1)), r"eps2d must be \[\] float32, got \(1,\) float32"),
        (dict(colors=torch.zeros(10, 3, 3), sh_degree=1), r"colors must hold at least 4 coefficients for sh_degree 1, got \(10, 3, 3\)"),
        (dict(sh_degree=4), r"sh_degree must be None or from 0 to 3, got 4"),
        (dict(width=0), r"width must be > 0, got 0"),
        (dict(height=-2), r"height must be > 0, got -2"),
        (dict(render_mode="RGBD"), r"render_mode must be one of RGB, D, ED, RGB\+D, RGB\+ED, got 'RGBD'"),
        (dict(rasterize_mode="fast"), r"rasterize_mode must be one of classic, antialiased, got 'fast'"),
        (dict(backgrounds=torch.zeros(1, 4)), r"backgrounds must be \[C, D\] float32 with C = 1, D = 3, got \(1, 4\) float32"),
        (dict(colors=torch.zeros(10, 5), absgrad=True), r"absgrad needs at most 4 channels, colours and depth together, got 5"),
        (dict(packed=True), r"packed must be False"),
        (dict(camera_model="fisheye"), r"camera_model must be 'pinhole'"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)  # fmt: skip
def test_wrong_input_is_named(change, message):
    arguments = dict(
        means=torch.zeros(10, 3), quats=torch.zeros(10, 4), scales=torch.zeros(10, 3), opacities=torch.zeros(10), colors=torch.zeros(10, 3),
        viewmats=torch.eye(4)[None], Ks=torch.eye(3)[None], width=8, height=8,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        rasterization(**{**arguments, **change})


@pytest.mark.parametrize("name", ["width", "height"])
@pytest.mark.parametrize("value", [64.0, "64", None, True])
def test_sizes_are_integers(name, value):
    scene = cases.scene(n=3, cameras=1)
    size = {"width": 8, "height": 8, name: value}
    with pytest.raises(TypeError, match=f"{name} must be an integer, got {value!r}"):
        rasterization(*(scene.tensors()[k] for k in cases.NAMES), scene.Ks, **size)


def test_unknown_options_are_refused_and_tuning_is_ignored():
    scene = cases.scene(n=3, cameras=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'pakced'"):
        render(scene.tensors(), scene, pakced=False)
    assert torch.equal(render(scene.tensors(), scene, tile_size=16)[0], render(scene.tensors(), scene)[0])
