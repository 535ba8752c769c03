"""rasterization against the dense float64 reference, gradcheck, opcheck, and the promise of equal bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from gafcore import rasterization
from gafcore.native import uses_cuda
from gafcore.ops.rasterization_blend import _backward_op as blend_backward_op
from gafcore.ops.rasterization_blend import _forward_op as blend_op
from gafcore.ops.rasterization_project import _backward_op as project_backward_op
from gafcore.ops.rasterization_project import _forward_op as project_op
from tests.cases import rasterization as cases
from tests.reference import rasterization as reference

FLIPS = 0.005  # share of pixels that may differ because rounding moved an alpha over the cut at 1/255


def differing(got: torch.Tensor, want: torch.Tensor, tolerance: float) -> float:
    return ((got.double() - want).abs() > tolerance * (1 + want.abs())).any(-1).double().mean().item()


@pytest.mark.parametrize("scene", cases.scenes(), ids=str)
def test_image_matches_reference(scene):
    got, got_alpha, _ = scene.call(rasterization, scene.tensors(torch.float32))
    want, want_alpha = scene.call(reference.rasterization, scene.tensors())
    # Light below 1e-4 is cut off, where a colour can be a few units large.
    assert differing(got, want, 4e-4) <= FLIPS
    assert differing(got_alpha, want_alpha, 2e-4) <= FLIPS
    assert (got.double() - want).abs().mean() < 1e-4


@pytest.mark.parametrize("scene", cases.scenes(), ids=str)
def test_double_matches_reference(scene):
    got, got_alpha, _ = scene.call(rasterization, scene.tensors())
    want, want_alpha = scene.call(reference.rasterization, scene.tensors())
    assert differing(got, want, 4e-4) == 0
    visible = (want_alpha < 0.999).expand_as(want)  # where no light was cut off
    torch.testing.assert_close(got[visible], want[visible], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got_alpha, want_alpha, rtol=0, atol=2e-4)


@pytest.mark.parametrize("scene", cases.scenes(), ids=str)
def test_gradients_match_reference(scene):
    generator = torch.Generator().manual_seed(3)
    grads = []
    for fn, dtype in ((rasterization, torch.float32), (reference.rasterization, torch.float64)):
        tensors = scene.tensors(dtype, grad=True)
        image, alpha = scene.call(fn, tensors)[:2]
        generator.manual_seed(3)
        v_image = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        v_alpha = torch.randn(alpha.shape, generator=generator, dtype=torch.float64)
        ((image * v_image).sum() + (alpha * v_alpha).sum()).backward()
        grads.append({k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in tensors.items()})
    for name, want in grads[1].items():
        error = (grads[0][name].double() - want).norm()
        assert error < 0.01 * want.norm() + 1e-3, f"{name}: error {error:.2e} of {want.norm():.2e}"  # light below 1e-4 is cut off


@pytest.mark.parametrize("scene", cases.gradient_scenes(), ids=str)
def test_gradcheck(scene):
    tensors = scene.tensors(grad=True)
    names = [k for k in tensors if not (k in ("colors", "backgrounds") and "RGB" not in scene.options.get("render_mode", "RGB"))]

    def call(*values):
        return scene.call(rasterization, {**tensors, **dict(zip(names, values, strict=True))})[:2]

    assert torch.autograd.gradcheck(call, [tensors[k] for k in names], eps=1e-7, atol=1e-5, rtol=1e-5)


def run(scene, threads, count, dtype=torch.float32):
    threads(count)
    tensors = scene.tensors(dtype, grad=True)
    image, alpha, meta = scene.call(rasterization, tensors)
    generator = torch.Generator().manual_seed(0)
    ((image * torch.randn(image.shape, generator=generator)).sum() + alpha.sum()).backward()
    return [image, alpha, meta["radii"], *(v.grad for v in tensors.values() if v.grad is not None)]


@pytest.mark.parametrize("options", [dict(), dict(channels=7), dict(sh_degree=3, per_camera=True)], ids=str)
def test_same_bits_at_any_thread_count(options, threads):
    scene = cases.scene(n=40000, cameras=2, width=150, height=140, scale=0.01, **options)
    want = run(scene, threads, 1)
    for count in (1, 2, 3):
        for a, b in zip(want, run(scene, threads, count), strict=True):
            assert torch.equal(a, b)


def test_means2d_gradient_is_that_of_the_screen_position():
    scene = cases.scene(cameras=2, n=20, scale=0.05, spread=0.05)
    tensors = scene.tensors(grad=True)
    image, _, meta = scene.call(rasterization, {**tensors})
    meta["means2d"].retain_grad()
    (image**2).sum().backward()
    # Moving the principal point moves every splat of that camera on the screen, and (inside the margin) nothing else.
    for camera in range(2):
        for axis in range(2):
            losses = []
            for step in (1e-6, -1e-6):
                moved = scene.Ks.clone()
                moved[camera, axis, 2] += step
                call = cases.Scene("moved", scene.inputs, moved, scene.width, scene.height, scene.options)
                losses.append((call.call(rasterization, scene.tensors())[0] ** 2).sum())
            want = (losses[0] - losses[1]) / 2e-6
            torch.testing.assert_close(meta["means2d"].grad[camera, :, axis].sum(), want, rtol=1e-5, atol=1e-6)


def test_losses_on_positions_and_depths_reach_the_inputs():
    scene = cases.scene(n=8, cameras=1)
    tensors = scene.tensors(grad=True)
    _, _, meta = scene.call(rasterization, tensors)
    (meta["means2d"].sum() + meta["depths"].sum()).backward()
    uv, _, _, z = reference.project(
        *(tensors[k] for k in ("means", "quats", "scales")), tensors["viewmats"][0], scene.Ks[0], scene.width, scene.height, 0.3
    )
    seen = meta["radii"][0, :, 0] > 0
    want = torch.autograd.grad(uv[seen].sum() + z[seen].sum(), tensors["means"])[0]
    torch.testing.assert_close(tensors["means"].grad, want)


def test_absgrad_is_at_least_the_gradient_and_positive():
    scene = cases.scene(n=30, absgrad=True, scale=0.04)
    image, _, meta = scene.call(rasterization, scene.tensors(grad=True))
    meta["means2d"].retain_grad()
    (image**2).sum().backward()
    absgrad, grad = meta["means2d"].absgrad, meta["means2d"].grad
    assert (absgrad >= grad.abs() - 1e-12).all()
    assert absgrad.sum() > 1.2 * grad.abs().sum()


def test_absgrad_of_one_pixel_is_the_absolute_gradient():
    scene = cases.scene(n=10, absgrad=True, width=1, height=1, cameras=1, scale=0.3)
    image, _, meta = scene.call(rasterization, scene.tensors(grad=True))
    meta["means2d"].retain_grad()
    image.sum().backward()
    torch.testing.assert_close(meta["means2d"].absgrad, meta["means2d"].grad.abs())


def test_culled_gaussians_get_no_gradient():
    scene = cases.scene(n=4, cameras=1)
    tensors = scene.tensors(grad=True)
    with torch.no_grad():
        tensors["means"][1] = torch.tensor([0.0, 0.0, -5.0])
        tensors["means"][2] = torch.tensor([50.0, 0.0, 0.0])
    image, _, meta = scene.call(rasterization, tensors)
    image.sum().backward()
    assert (meta["radii"][0, 1:3] == 0).all()
    assert (meta["radii"][0, 0] > 0).all()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert (tensors[name].grad[1:3] == 0).all(), name


def test_statistics_count():
    scene = cases.scene(n=50, cameras=2, width=100, height=70, scale=0.03)
    _, _, meta = scene.call(rasterization, scene.tensors(torch.float32))
    assert meta["n_visible"] == (meta["radii"][..., 0] > 0).sum()
    assert meta["n_visible"] <= meta["n_pairs"] <= meta["n_visible"] * meta["tile_width"] * meta["tile_height"]
    assert meta["n_pairs_blended"] <= meta["n_pairs"]
    assert (meta["tile_width"], meta["tile_height"]) == (-(-100 // meta["tile_size"]), -(-70 // meta["tile_size"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float", "double"])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_blur_that_lies_in_memory_gives_the_numbers_bits(mode, dtype):
    results = []
    for eps2d in (0.7, torch.tensor(0.7, dtype=dtype), torch.tensor(0.3, dtype=dtype)):
        scene = cases.scene(rasterize_mode=mode, eps2d=eps2d)
        tensors = scene.tensors(dtype, grad=True)
        image, _, meta = scene.call(rasterization, tensors)
        image.square().sum().backward()
        results.append([image, meta["conics"], *(tensors[name].grad for name in ("means", "scales", "opacities", "viewmats"))])
    assert all(torch.equal(x, y) for x, y in zip(results[0], results[1], strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(results[1], results[2], strict=True))


OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("eps2d_at", [None, torch.tensor(0.7)], ids=["number", "tensor"])
def test_opcheck(eps2d_at):
    scene = cases.scene(n=9, cameras=2, sh_degree=1)
    t = scene.tensors(torch.float32)
    gaussians = [t[k] for k in cases.NAMES]
    options = (scene.width, scene.height, 1, False, True, 0.01, 1e10, 0.3, 0.0, eps2d_at)
    torch.library.opcheck(torch.ops.gafcore.rasterization_project.default, (*gaussians, scene.Ks.float(), *options))
    s = project_op(*gaussians, scene.Ks.float(), *options)
    blending = (s[0], s[2], s[3], None, t["backgrounds"], scene.width, scene.height, 3)
    torch.library.opcheck(torch.ops.gafcore.rasterization_blend.default, (*blending, False))
    # On a GPU what is kept has room that nobody writes, so that two calls' bytes differ there: all but their comparison.
    checks = [name for name in OPCHECKS if name != "test_aot_dispatch_dynamic" or not uses_cuda(s[0])]
    torch.library.opcheck(torch.ops.gafcore.rasterization_blend.default, (*blending, True), test_utils=checks)
    render, alphas, kept, _ = blend_op(*blending, True)
    back = (*blending, render, alphas, kept, torch.ones_like(render), torch.ones_like(alphas), True, True, False)
    torch.library.opcheck(torch.ops.gafcore.rasterization_blend_backward.default, back)
    v_splats, v_means2d, *_ = blend_backward_op(*back)
    back = (*gaussians, scene.Ks.float(), *options, s[3], v_splats, v_means2d, None, True, True)
    torch.library.opcheck(torch.ops.gafcore.rasterization_project_backward.default, back)
    assert project_backward_op(*back)[0].shape == t["means"].shape


VECTOR_SCENES = {
    "classic": dict(sh_degree=2),
    "absgrad": dict(sh_degree=1, absgrad=True),
    "antialiased": dict(sh_degree=3, rasterize_mode="antialiased"),
    "depth": dict(channels=5, render_mode="RGB+ED"),
}


def values_and_gradients(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found = {}
    for name, options in VECTOR_SCENES.items():
        scene = cases.scene(n=400, cameras=2, width=70, height=50, scale=0.03, **options)
        tensors = scene.tensors(dtype, grad=True)
        image, alpha, meta = scene.call(rasterization, tensors)
        ((image**2).sum() + alpha.sum()).backward()
        found |= {f"{name} image": image.detach(), f"{name} alpha": alpha.detach()}
        found |= {f"{name} v_{key}": x.grad for key, x in tensors.items()}
        if name == "absgrad":
            found[f"{name} v_means2d"] = meta["means2d"].absgrad
    return found


@pytest.mark.parametrize("isa", ["best", "avx2", "baseline"])
def test_vectors_of_every_instruction_set_give_what_doubles_give(isa, tmp_path):
    """gradcheck sees the kernels in double alone, which are compiled without these vectors. Off by 1e-6 at most where it was measured; one
    splat on the other side of a threshold in one pixel would be 5e-5."""
    path = tmp_path / "out.pt"
    code = (
        "import sys, torch; from tests.ops import test_rasterization as t; torch.save(t.values_and_gradients(torch.float32), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], env={**os.environ, "GAFCORE_ISA": isa}, check=True, timeout=120)
    got, want = torch.load(path), values_and_gradients(torch.float64)
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert (got[name] - x).norm() < 1e-4 * x.norm(), name


def test_compiles_as_one_graph():
    scene = cases.scene(n=20, cameras=1, sh_degree=1, render_mode="RGB+ED")

    def loss(*values):
        image, alpha, meta = scene.call(rasterization, dict(zip(scene.inputs, values, strict=True)))
        return (image**2).sum() + alpha.sum() + meta["depths"].sum()

    values = list(scene.tensors(torch.float32, grad=True).values())
    want, got = loss(*values), torch.compile(loss, fullgraph=True, backend="aot_eager")(*values)
    assert torch.equal(got, want)
    for a, b in zip(torch.autograd.grad(got, values), torch.autograd.grad(want, values), strict=True):
        torch.testing.assert_close(a, b)
