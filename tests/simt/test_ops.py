"""csrc/cuda in the emulator against csrc/cpu: every case of the op suites, forward and backward, in several orders of threads."""

from __future__ import annotations

import pytest
import torch

from gafcore import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterize_mesh
from tests.cases.bindings import BindingCase, binding_cases
from tests.cases.images import ImageCase, image_cases, small_image_cases
from tests.cases.meshes import mesh_cases
from tests.cases.skinning import HEAD, SkinningCase, skinning_cases
from tests.simt.emulator import KIND, emulated
from tests.simt.parity import assert_parity

FLOAT = torch.float32
SMALL = KIND == "tsan"  # the race detector is some twenty times slower
ORDERS = ("random",) if SMALL else ("fifo", "lifo", "random")


def some(cases, size, limit):
    """All cases, or in the race detector's build those that are small enough."""
    return [c for c in cases if not SMALL or size(c) <= limit]


@pytest.mark.parametrize("needs_vertices", [True, False])
@pytest.mark.parametrize("case", some(binding_cases(), lambda c: c.n_batch * c.n_gaussians, 100), ids=str)
def test_bind_triangles(case: BindingCase, needs_vertices: bool) -> None:
    vertices, faces, binding, *local = case.inputs(FLOAT)

    def call(vertices, *local):
        return bind_triangles(vertices, faces, binding, *local)

    wrt = (0, 1, 2, 3) if needs_vertices else (1, 2, 3)
    assert_parity(call, (vertices, *local), wrt, orders=ORDERS, rtol=1e-4, atol=1e-5)


def test_bind_triangles_of_nothing() -> None:
    vertices, faces = torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]])
    none = torch.zeros(0, dtype=torch.int64)
    empty = (vertices, torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3))
    assert_parity(lambda v, *x: bind_triangles(v, faces, none, *x), empty, (0, 1), orders=("fifo",))


@pytest.mark.parametrize(
    "case", some([*skinning_cases(), SkinningCase("nothing", 2, 0, HEAD)], lambda c: c.n_batch * c.n_vertices, 300), ids=str
)
def test_linear_blend_skinning(case: SkinningCase) -> None:
    vertices, weights, *rest = case.inputs(FLOAT)

    def call(vertices, axis_angles, joints, translations):
        return (linear_blend_skinning(vertices, weights, axis_angles, joints, case.parents, translations),)

    assert_parity(call, (vertices, *rest), (0, 1, 2, 3), orders=ORDERS)


def test_linear_blend_skinning_of_too_many_joints() -> None:
    case = SkinningCase("too-many", 1, 2, (-1, *range(512)))
    with emulated(), pytest.raises(ValueError, match="on a GPU at most 512 joints and 65535 poses, got 513 and 1"):
        vertices, weights, axis_angles, joints, translations = case.inputs(FLOAT)
        linear_blend_skinning(vertices, weights, axis_angles, joints, case.parents, translations)


@pytest.mark.parametrize("padding", ["zeros", "valid"])
@pytest.mark.parametrize("case", some(image_cases(), lambda c: torch.Size(c.shape).numel(), 2800), ids=str)
def test_photometric_loss(case: ImageCase, padding: str) -> None:
    image, target, mask = case.inputs(FLOAT)
    assert_parity(lambda x: photometric_loss(x, target, mask, padding=padding), (image,), (0,), orders=ORDERS)
    assert_parity(lambda x: photometric_loss(x, target, mask, padding=padding), (image,), (), orders=ORDERS[:1])


@pytest.mark.parametrize("case", small_image_cases(), ids=str)
def test_photometric_loss_of_small_images(case: ImageCase) -> None:
    image, target, mask = case.inputs(FLOAT)
    assert_parity(lambda x: photometric_loss(x, target, mask), (image,), (0,), orders=ORDERS[:1])


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (5, 5, 0), (0, 5, 5, 3)])
def test_photometric_loss_of_nothing(shape) -> None:
    assert_parity(lambda x: photometric_loss(x, torch.zeros(shape)), (torch.zeros(shape),), (0,), orders=ORDERS[:1])


def test_photometric_loss_without_weight_or_alignment() -> None:
    image, target, _ = ImageCase("misaligned", (2, 9, 7, 3)).inputs(FLOAT)  # image 1 begins at 4-byte alignment only
    assert_parity(lambda x: photometric_loss(x[1], target[1]), (image,), (0,), orders=ORDERS[:1])
    nothing = torch.zeros(2, 9, 7)
    assert_parity(lambda x: photometric_loss(x, target, nothing), (image,), (0,), orders=ORDERS[:1])


@pytest.mark.parametrize("case", some(mesh_cases(), lambda c: c.width * c.height * len(c.viewmats), 1800), ids=str)
def test_rasterize_mesh(case) -> None:
    vertices, faces, viewmats, Ks, width, height = case.inputs(FLOAT)

    def call(vertices, viewmats):
        return rasterize_mesh(vertices, faces, viewmats, Ks, width, height, near_plane=case.near_plane)

    assert_parity(call, (vertices, viewmats), (0, 1), orders=ORDERS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_faces", [0, 1])
def test_rasterize_mesh_of_nothing(n_faces) -> None:
    faces = torch.zeros(n_faces, 3, dtype=torch.int64)
    Ks, viewmats = torch.eye(3)[None], torch.eye(4)[None]
    assert_parity(lambda v: rasterize_mesh(v, faces, viewmats, Ks, 5, 4), (torch.rand(3, 3),), (0,), orders=ORDERS[:1])
    with emulated():
        assert rasterize_mesh(torch.rand(3, 3), faces, viewmats, Ks, 0, 4).depth.shape == (1, 4, 0)


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("per_camera", [False, True])
def test_interpolate(channels: int, per_camera: bool) -> None:
    case = next(c for c in mesh_cases() if c.name == "soup")
    vertices, faces, viewmats, Ks, width, height = case.inputs(FLOAT)
    raster = rasterize_mesh(vertices, faces, viewmats, Ks, width, height)
    shape = (*((len(viewmats),) if per_camera else ()), len(vertices), channels)
    attributes = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert (raster.triangle_ids < 0).any() and (raster.triangle_ids >= 0).any()
    assert_parity(lambda x, b: [interpolate(x, faces, raster.triangle_ids, b)], (attributes, raster.barycentrics), (0, 1), orders=ORDERS)
    assert_parity(lambda x: [interpolate(x, faces, raster.triangle_ids, raster.barycentrics)], (attributes,), (0,), orders=ORDERS[:1])
