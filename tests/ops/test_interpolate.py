from __future__ import annotations

import pytest
import torch

from gafcore import interpolate, rasterize_mesh
from tests.cases.meshes import mesh_cases
from tests.reference import mesh as reference

CASES = [c for c in mesh_cases() if c.name in ("soup", "mesh-per-camera", "one-pixel", "many-bands")]
all_cases = pytest.mark.parametrize("case", CASES, ids=str)


def scene(case, channels: int, dtype=torch.float64):
    """Attributes (shared or per camera, as the vertices are), faces, ids, barycentrics."""
    raster = rasterize_mesh(*case.inputs(dtype))
    shape = (*case.vertices.shape[:-1], channels)
    attributes = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return attributes, case.faces, raster.triangle_ids, raster.barycentrics


@all_cases
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_forward_matches_reference(case, channels):
    inputs = scene(case, channels, torch.float32)
    image = interpolate(*inputs)
    want = reference.interpolate(inputs[0].double(), *inputs[1:3], inputs[3].double())
    torch.testing.assert_close(image.double(), want, rtol=1e-5, atol=1e-6)
    assert torch.all(image[inputs[2] < 0] == 0)


@all_cases
@pytest.mark.parametrize("channels", [1, 4])
def test_gradients_match_reference(case, channels):
    attributes, faces, ids, barycentrics = scene(case, channels)
    v_image = torch.randn(*ids.shape, channels, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(op):
        inputs = (attributes.clone().requires_grad_(), barycentrics.clone().requires_grad_())
        return torch.autograd.grad(op(inputs[0], faces, ids, inputs[1]), inputs, v_image)

    for got, want in zip(gradients(interpolate), gradients(reference.interpolate), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    attributes, faces, ids, barycentrics = scene(CASES[1], 2)
    ids, barycentrics = ids[:, 10:20], barycentrics[:, 10:20]
    inputs = (attributes.requires_grad_(), barycentrics.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: interpolate(a, faces, ids, b), inputs, fast_mode=True)


def test_vertices_get_their_gradient_through_the_barycentrics():
    """A chain of both ops, against the same chain of oracles: attributes that depend on the vertices as well."""
    case = CASES[0]
    _, faces, viewmats, Ks, *size = case.inputs()

    def ours(v):
        _, barycentrics, depth = rasterize_mesh(v, faces, viewmats, Ks, *size)
        return (interpolate(v.sin(), faces, ids, barycentrics) * depth[..., None]).square().sum()

    def oracle(v):
        barycentrics, depth = reference.hits_of(ids, v, faces, viewmats, Ks, *size)
        return (reference.interpolate(v.sin(), faces, ids, barycentrics) * depth[..., None]).square().sum()

    ids = rasterize_mesh(*case.inputs()).triangle_ids
    a, b = case.vertices.clone().requires_grad_(), case.vertices.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(ours(a), a), torch.autograd.grad(oracle(b), b), rtol=1e-9, atol=1e-12)


def test_attributes_may_have_faces_of_their_own():
    case = CASES[0]
    raster = rasterize_mesh(*case.inputs(torch.float32))
    uv_faces = torch.arange(3 * len(case.faces)).reshape(-1, 3).flip(0)
    uvs = torch.rand(3 * len(case.faces), 2, generator=torch.Generator().manual_seed(0))
    image = interpolate(uvs, uv_faces, raster.triangle_ids, raster.barycentrics)
    torch.testing.assert_close(image, reference.interpolate(uvs, uv_faces, raster.triangle_ids, raster.barycentrics))


def test_same_bits_at_any_number_of_threads(threads):
    case = CASES[0]
    raster = rasterize_mesh(case.vertices, case.faces, case.viewmats, case.Ks * torch.tensor([10.0, 10, 1])[:, None], 230, 370)
    attributes = torch.randn(*case.vertices.shape[:-1], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        inputs = (attributes.float().requires_grad_(), raster.barycentrics.float().requires_grad_())
        image = interpolate(inputs[0], case.faces, raster.triangle_ids, inputs[1])
        results.append((image, *torch.autograd.grad(image.square().sum(), inputs)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_empty():
    faces, ids, barycentrics = torch.zeros(0, 3, dtype=torch.int64), torch.full((1, 2, 2), -1, dtype=torch.int32), torch.zeros(1, 2, 2, 3)
    assert torch.all(interpolate(torch.zeros(0, 3), faces, ids, barycentrics) == 0)
    assert interpolate(torch.zeros(4, 0), faces, ids, barycentrics).shape == (1, 2, 2, 0)
    assert interpolate(torch.zeros(4, 2), faces, ids[:, :0], barycentrics[:, :0]).shape == (1, 0, 2, 2)
    attributes = torch.zeros(0, 3, requires_grad=True)
    interpolate(attributes, faces, ids, barycentrics).sum().backward()
    assert attributes.grad.shape == (0, 3)


def test_not_contiguous():
    attributes, faces, ids, barycentrics = scene(CASES[0], 3, torch.float32)
    strided = (
        attributes.T.contiguous().T,
        faces.flip(1).flip(1).T.contiguous().T,
        ids.mT.contiguous().mT,
        barycentrics.flip(-1).contiguous().flip(-1),
    )
    assert torch.equal(interpolate(*strided), interpolate(attributes, faces, ids, barycentrics))
    a = attributes.clone().requires_grad_()
    image = interpolate(a, faces, ids, barycentrics)
    v_image = torch.rand(*image.shape[:-1], 1).expand(image.shape)
    assert torch.equal(*(torch.autograd.grad(image, a, v, retain_graph=True)[0] for v in (v_image, v_image.contiguous())))


def test_op_is_registered_well():
    for case in CASES[:2]:
        args = scene(case, 3, torch.float32)
        torch.library.opcheck(torch.ops.gafcore.interpolate.default, args)
        v_image = torch.ops.gafcore.interpolate(*args)
        for needs in ((True, True), (False, True)):
            torch.library.opcheck(torch.ops.gafcore.interpolate_backward.default, (*args, v_image, *needs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(attributes=torch.zeros(3)), r"attributes must be \[C, V, A\] float32 or float64, got \(3,\) float32"),
        (dict(attributes=torch.zeros(2, 3, 1)), r"triangle_ids must be \[C, H, W\] int32 with C = 2, got \(1, 2, 2\) int32"),
        (dict(faces=torch.tensor([[0, 1, 3]])), r"faces must hold numbers of attributes from 0 to 2, got 3"),
        (dict(triangle_ids=torch.ones(1, 2, 2, dtype=torch.int32)), r"triangle_ids must hold -1 or numbers of faces from 0 to 0, got 1"),
        (dict(triangle_ids=torch.full((1, 2, 2), -2, dtype=torch.int32)), r"triangle_ids must hold -1 or .* got -2"),
        (dict(triangle_ids=torch.zeros(1, 2, 2, dtype=torch.int64)), r"triangle_ids must be \[C, H, W\] int32, got \(1, 2, 2\) int64"),
        (dict(faces=torch.zeros(1, 3, dtype=torch.int64, device="meta")), r"faces must be on cpu like the other tensors, got .* on meta;"),
        (dict(triangle_ids=torch.zeros(1, 2, 2, dtype=torch.int32, device="meta")), r"triangle_ids must be on cpu like the other tensors"),
        (dict(barycentrics=torch.zeros(1, 2, 3, 3)), r"barycentrics must be \[C, H, W, 3\] float32 with C = 1, H = 2, W = 2, got"),
    ],
)
def test_wrong_input(change, message):
    args = dict(
        attributes=torch.zeros(3, 2),
        faces=torch.tensor([[0, 1, 2]]),
        triangle_ids=torch.zeros(1, 2, 2, dtype=torch.int32),
        barycentrics=torch.zeros(1, 2, 2, 3),
    )
    with pytest.raises(ValueError, match=message):
        interpolate(**{**args, **change})
