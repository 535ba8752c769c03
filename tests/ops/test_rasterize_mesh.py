from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore import interpolate, rasterize_mesh
from gafcore.cameras import intrinsics
from gafcore.native import check
from tests.cases.meshes import MeshCase, mesh_cases, sphere, triangle_soup, views
from tests.reference import mesh as reference

CASES = mesh_cases()
all_cases = pytest.mark.parametrize("case", CASES, ids=str)


def draw(case: MeshCase, dtype: torch.dtype = torch.float64):
    return rasterize_mesh(*case.inputs(dtype), near_plane=case.near_plane)


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_forward_matches_reference(case, dtype):
    # Rounded first, so that both see the same numbers.
    vertices, faces, viewmats, Ks, *size = case.inputs(dtype)
    ids, barycentrics, depth = rasterize_mesh(vertices, faces, viewmats, Ks, *size, near_plane=case.near_plane)
    want_ids, want_barycentrics, want_depth, safe = reference.rasterize_mesh(
        vertices.double(), faces, viewmats.double(), Ks.double(), *size, case.near_plane
    )
    assert safe.double().mean() > 0.98
    assert ids.dtype == torch.int32
    assert torch.equal(ids[safe].long(), want_ids[safe])
    rtol = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(barycentrics[safe].double(), want_barycentrics[safe], rtol=0, atol=rtol)
    torch.testing.assert_close(depth[safe].double(), want_depth[safe], rtol=rtol, atol=0)


@all_cases
def test_gradient_matches_reference(case):
    vertices, faces, viewmats, Ks, *size = case.inputs()
    g = torch.Generator().manual_seed(0)

    def gradients(hit):
        inputs = (vertices.clone().requires_grad_(), viewmats.clone().requires_grad_())
        return torch.autograd.grad(hit(*inputs), inputs, (v_barycentrics, v_depth))

    ids = draw(case).triangle_ids
    v_barycentrics = torch.randn(*ids.shape, 3, generator=g, dtype=torch.float64)
    v_depth = torch.randn(ids.shape, generator=g, dtype=torch.float64)
    got = gradients(lambda v, m: rasterize_mesh(v, faces, m, Ks, *size, near_plane=case.near_plane)[1:])
    want = gradients(lambda v, m: reference.hits_of(ids, v, faces, m, Ks, *size))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("soup", "mesh-per-camera")], ids=str)
def test_gradcheck(case):
    _, faces, _, Ks, *size = case.inputs()
    inputs = (case.vertices.clone().requires_grad_(), case.viewmats.clone().requires_grad_())
    # Fast mode: one random direction instead of every coordinate, of which a few move an edge across a pixel's centre.
    assert torch.autograd.gradcheck(lambda v, m: rasterize_mesh(v, faces, m, Ks, *size)[1:], inputs, eps=1e-8, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("soup", "sphere", "through-the-near-plane", "many-bands")], ids=str)
def test_same_bits_at_any_number_of_threads(case, threads):
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        vertices, faces, viewmats, Ks, *size = case.inputs(torch.float32)
        inputs = (vertices.requires_grad_(), viewmats.requires_grad_())
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, *size)
        results.append((*raster, *torch.autograd.grad((raster.barycentrics.square().sum() + raster.depth.sum()), inputs)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_shared_edges_belong_to_one_triangle(dtype):
    """A grid whose vertices, edges and diagonals all run through pixel centres: each pixel is covered exactly once."""
    n = 16
    y, x = torch.meshgrid(torch.arange(n + 1, dtype=dtype), torch.arange(n + 1, dtype=dtype), indexing="ij")
    vertices = torch.stack([x + 0.5, y + 0.5, torch.ones_like(x)], -1).reshape(-1, 3)
    a = (torch.arange(n)[:, None] * (n + 1) + torch.arange(n)).reshape(-1)
    faces = torch.cat([torch.stack([a, a + 1, a + n + 2], -1), torch.stack([a, a + n + 2, a + n + 1], -1)])
    viewmat, K = torch.eye(4, dtype=dtype)[None], torch.eye(3, dtype=dtype)[None]
    covered = torch.zeros(n + 1, n + 1, dtype=torch.long)
    for face in faces:
        covered += rasterize_mesh(vertices, face[None], viewmat, K, n + 1, n + 1).triangle_ids[0] >= 0
    assert covered.max() == 1
    assert torch.all(covered[1:n, 1:n] == 1)
    whole = rasterize_mesh(vertices, faces, viewmat, K, n + 1, n + 1)
    assert torch.equal(whole.triangle_ids[0] >= 0, covered == 1)


@pytest.mark.parametrize("seed", range(4))
def test_closed_surface_has_no_holes(seed):
    """From inside a sphere every pixel shows it, whatever the rotation and although triangles pass behind the camera."""
    vertices, faces = sphere(40)
    g = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=g))[0]
    viewmat = torch.eye(4)
    viewmat[:3, :3] = rotation * torch.linalg.det(rotation)
    viewmat[:3, 3] = 0.05 * torch.randn(3, generator=g).clamp(-1, 1)
    raster = rasterize_mesh(vertices.float(), faces, viewmat[None], intrinsics(80.0, 256, 256)[None], 256, 256, near_plane=1e-4)
    assert torch.all(raster.triangle_ids >= 0)


def test_equal_depth_goes_to_the_lower_number():
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2]])
    faces = torch.tensor([[0, 0, 1], [0, 1, 2], [0, 1, 2], [1, 2, 0]])
    ids = rasterize_mesh(vertices, faces, torch.eye(4)[None], intrinsics(20.0, 32, 32)[None], 32, 32).triangle_ids
    assert set(ids.unique().tolist()) == {-1, 1}


def test_both_sides_are_seen():
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2]])
    view = (torch.eye(4)[None], intrinsics(20.0, 32, 32)[None], 32, 32)
    a = rasterize_mesh(vertices, torch.tensor([[0, 1, 2]]), *view)
    b = rasterize_mesh(vertices, torch.tensor([[0, 2, 1]]), *view)
    assert torch.equal(a.depth > 0, b.depth > 0)
    assert 150 < int((a.depth > 0).sum()) < 210  # 20 x 20 / 2 pixels


def test_perspective_correct_barycentrics():
    """Half-way between the image of a corner at 1 m and of one at 3 m lies a quarter of the edge."""
    vertices = torch.tensor([[0.0, 0, 1], [3, 0, 3], [0, 3, 1]])
    K = torch.tensor([[10.0, 0, 0.5], [0, 10, 0.4], [0, 0, 1]])
    raster = rasterize_mesh(vertices, torch.tensor([[0, 1, 2]]), torch.eye(4)[None], K[None], 12, 12)
    torch.testing.assert_close(raster.barycentrics[0, 0, 5, :2], torch.tensor([0.75, 0.25]), atol=5e-3, rtol=0)
    torch.testing.assert_close(raster.depth[0, 0, 5], torch.tensor(1.5), atol=1e-2, rtol=0)


def test_nothing_to_draw():
    view = (torch.eye(4)[None], torch.eye(3)[None])
    empty = torch.zeros(0, 3, dtype=torch.int64)
    raster = rasterize_mesh(torch.zeros(0, 3), empty, *view, 4, 3)
    assert torch.all(raster.triangle_ids == -1)
    assert torch.all(raster.depth == 0)
    assert torch.all(raster.barycentrics == 0)
    assert rasterize_mesh(torch.zeros(3, 3), empty, *view, 0, 3).depth.shape == (1, 3, 0)
    assert rasterize_mesh(torch.zeros(3, 3), empty, view[0][:0], view[1][:0], 2, 2).depth.shape == (0, 2, 2)
    vertices = torch.zeros(2, 3, requires_grad=True)
    rasterize_mesh(vertices, empty, *view, 4, 4).depth.sum().backward()
    assert torch.all(vertices.grad == 0)


def test_not_contiguous():
    case = CASES[0]
    vertices, faces, viewmats, Ks, *size = case.inputs(torch.float32)
    strided = torch.empty(*vertices.shape, 2)[..., 0].copy_(vertices).requires_grad_()
    turned = faces.T.contiguous().T
    assert not strided.is_contiguous() and not turned.is_contiguous()
    got = rasterize_mesh(strided, turned, viewmats.mT.contiguous().mT, Ks.mT.contiguous().mT, *size)
    want = rasterize_mesh(vertices, faces, viewmats, Ks, *size)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    v_depth = torch.ones(1).expand(got.depth.shape)
    assert torch.autograd.grad(got.depth, strided, v_depth)[0].abs().sum() > 0


NUMBERS = st.one_of(
    st.floats(-2, 2, width=32), st.sampled_from([0.0, 1e-30, -1e-38, 1e30, -3e38, float("inf"), float("-inf"), float("nan"), 0.01, 1.0])
)


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(NUMBERS, min_size=18, max_size=18),
    faces=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=5),
    view=st.lists(NUMBERS, min_size=7, max_size=7),
    size=st.tuples(st.integers(1, 20), st.integers(1, 40)),
)
def test_any_number_is_survived(numbers, faces, view, size):
    viewmat, K = torch.eye(4), torch.eye(3)
    viewmat[:3, 3] = torch.tensor(view[:3])
    K[0, 0], K[1, 1], K[0, 2], K[1, 2] = 10 * torch.tensor(view[3:])
    vertices = torch.tensor(numbers).reshape(6, 3).requires_grad_()
    raster = rasterize_mesh(vertices, torch.tensor(faces), viewmat[None], K[None], *size)
    seen = raster.triangle_ids >= 0
    assert raster.triangle_ids.min() >= -1
    assert raster.triangle_ids.max() < len(faces)
    assert torch.all(raster.barycentrics[seen] >= 0)
    torch.testing.assert_close(raster.barycentrics[seen].sum(-1), torch.ones(int(seen.sum())), atol=1e-5, rtol=0)
    assert torch.all(raster.depth[seen] >= 0.01 * (1 - 1e-6))
    corners = vertices.detach()[torch.tensor(faces)]
    assert torch.all(corners[raster.triangle_ids[seen].long()].isfinite())
    (raster.barycentrics.sum() + raster.depth.sum()).backward()


def test_op_is_registered_well():
    for case in (CASES[0], CASES[1]):
        args = (*case.inputs(torch.float32), 0.01)
        torch.library.opcheck(torch.ops.gafcore.rasterize_mesh.default, args)
        ids, barycentrics, depth = torch.ops.gafcore.rasterize_mesh(*args)
        torch.library.opcheck(torch.ops.gafcore.rasterize_mesh_backward.default, (*args[:4], ids, barycentrics, barycentrics, depth))


def test_compiles_without_graph_breaks():
    vertices, faces, viewmats, Ks, *size = CASES[0].inputs(torch.float32)

    def loss(v):
        return rasterize_mesh(v, faces, viewmats, Ks, *size).depth.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    a, b = vertices.clone().requires_grad_(), vertices.clone().requires_grad_()
    compiled(a).backward()
    loss(b).backward()
    assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vertices=torch.zeros(4, 2)), r"vertices must be \[V, 3\] float32 or float64, got \(4, 2\) float32"),
        (dict(vertices=torch.zeros(5, 4, 3)), r"viewmats must be \[C, 4, 4\] float32 with C = 5, got \(1, 4, 4\) float32"),
        (dict(vertices=torch.zeros(4, 3, dtype=torch.float16)), r"vertices must be .* got \(4, 3\) float16"),
        (dict(faces=torch.zeros(2, 3, dtype=torch.int32)), r"faces must be \[F, 3\] int64, got \(2, 3\) int32"),
        (dict(faces=torch.tensor([[0, 1, 4]])), r"faces must hold numbers of vertices from 0 to 3, got 4"),
        (dict(faces=torch.tensor([[0, 1, -1]])), r"faces must hold numbers of vertices from 0 to 3, got -1"),
        (dict(Ks=torch.zeros(2, 3, 3)), r"Ks must be \[C, 3, 3\] float32 with C = 1, got \(2, 3, 3\) float32"),
        (dict(viewmats=torch.eye(4, dtype=torch.float64)[None]), r"viewmats must be \[C, 4, 4\] float32, got \(1, 4, 4\) float64"),
        (dict(faces=torch.zeros(1, 3, dtype=torch.int64, device="meta")), r"faces must be on cpu like the other tensors, got .* on meta;"),
        (dict(width=-1), r"width and height must be >= 0, got -1 and 4"),
        (dict(near_plane=0.0), r"near_plane must be > 0, got 0\.0"),
    ],
)
def test_wrong_input(change, message):
    args = dict(
        vertices=torch.zeros(4, 3), faces=torch.tensor([[0, 1, 2]]), viewmats=torch.eye(4)[None], Ks=torch.eye(3)[None], width=4, height=4
    )
    with pytest.raises(ValueError, match=message):
        rasterize_mesh(**{**args, **change})


@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_are_integers(name):
    size = {"width": 4, "height": 4, name: 4.0}
    with pytest.raises(TypeError, match=rf"{name} must be an integer, got 4\.0"):
        rasterize_mesh(torch.zeros(4, 3), torch.tensor([[0, 1, 2]]), torch.eye(4)[None], torch.eye(3)[None], **size)


def test_inference_mode_with_index_tensors_as_on_a_gpu(monkeypatch):
    """There indices in range are remembered by their tensors' versions, which those made in the mode do not have."""
    monkeypatch.setattr(check, "_on_gpu", lambda _: True)
    monkeypatch.setattr(check, "capturing", lambda _: False)
    case = CASES[0]

    def call():
        vertices, faces, viewmats, Ks, *size = case.inputs(torch.float32)
        faces = faces.clone()
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, *size)
        return faces, interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics)

    _, want = call()
    with torch.inference_mode():
        faces, image = call()
        assert faces.is_inference() and torch.equal(image, want)
        faces[0, 0] = -2
        with pytest.raises(ValueError, match="faces must hold numbers of vertices from 0 to .*, got -2"):
            rasterize_mesh(case.vertices, faces, case.viewmats, case.Ks, 8, 8)


def test_large_coordinates_keep_pixels_small():
    """A head a kilometre from the origin is drawn where it is: the setup runs in double."""
    vertices, faces = triangle_soup(20, size=0.1, spread=0.1, seed=9)
    viewmats, Ks = views(40, 40, focal_px=60, eyes=[(0.0, 0.0, 1.0)])
    near = rasterize_mesh(vertices, faces, viewmats, Ks, 40, 40)
    shift = torch.tensor([1024.0, -2048, 512], dtype=torch.float64)
    moved = viewmats.clone()
    moved[:, :3, 3] -= viewmats[:, :3, :3] @ shift
    far = rasterize_mesh(vertices + shift, faces, moved, Ks, 40, 40)
    assert (near.triangle_ids == far.triangle_ids).double().mean() > 0.999
