from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore import bind_triangles
from tests.cases.bindings import binding_cases
from tests.reference import bind_triangles as reference

CASES = binding_cases()
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
FLOATS = (0, 3, 4, 5)  # vertices, means, quats, log_scales
DOUBLE = torch.float64


def with_gradients(inputs):
    return tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)


def one_triangle(dtype=torch.float32):
    """Right-angled, in the plane z = 0, first edge along x: length 2, height 4, so the scale is 3."""
    return torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 4, 0]]], dtype=dtype), torch.tensor([[0, 1, 2]])


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
def test_forward_matches_reference(case, dtype):
    inputs = case.inputs(dtype)
    means, quats, scales = bind_triangles(*inputs)
    want_means, want_rotations, want_scales = reference.bind_triangles(*(x.double() if x.is_floating_point() else x for x in inputs))
    tolerance = dict(rtol=1e-9, atol=1e-10) if dtype == DOUBLE else dict(rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(means.double(), want_means, **tolerance)
    torch.testing.assert_close(scales.double(), want_scales, **tolerance)
    torch.testing.assert_close(reference.rotation_of(quats.double()), want_rotations, **tolerance)
    torch.testing.assert_close(quats.norm(dim=-1).double(), torch.ones(quats.shape[:-1], dtype=DOUBLE), rtol=1e-6, atol=0)


@all_cases
def test_gradients_match_reference(case):
    inputs = case.inputs()
    g = torch.Generator().manual_seed(1)
    shape = (case.n_batch, case.n_gaussians, 3)
    v_means, v_scales = torch.randn(shape, generator=g, dtype=DOUBLE), torch.randn(shape, generator=g, dtype=DOUBLE)
    v_rotations = torch.randn(*shape, 3, generator=g, dtype=DOUBLE)

    def gradients(means, rotations, scales, inputs):
        loss = (means * v_means).sum() + (rotations * v_rotations).sum() + (scales * v_scales).sum()
        return torch.autograd.grad(loss, [inputs[i] for i in FLOATS])

    ours, theirs = with_gradients(inputs), with_gradients(inputs)
    means, quats, scales = bind_triangles(*ours)
    got = gradients(means, reference.rotation_of(quats), scales, ours)
    want = gradients(*reference.bind_triangles(*theirs), theirs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10 * float(b.abs().max()))


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_gradcheck(case):
    _, faces, binding, *_ = inputs = with_gradients(case.inputs())
    assert torch.autograd.gradcheck(
        lambda v, m, q, s: bind_triangles(v, faces, binding, m, q, s), [inputs[i] for i in FLOATS], fast_mode=case.n_gaussians > 1
    )


def test_by_hand():
    vertices, faces = one_triangle()
    means, quats, scales = bind_triangles(
        vertices, faces, torch.tensor([0]), torch.tensor([[1.0, 2, 3]]), torch.tensor([[5.0, 0, 0, 0]]), torch.tensor([[0.0, 1, -1]])
    )
    # Axes: first edge +x, normal +z, and their cross product -y; origin at the mean of the corners.
    torch.testing.assert_close(means[0, 0], torch.tensor([2 / 3 + 3.0, 4 / 3 - 9, 6.0]))
    torch.testing.assert_close(scales[0, 0], 3 * torch.tensor([0.0, 1, -1]).exp())
    half = 0.5**0.5
    torch.testing.assert_close(quats[0, 0].abs(), torch.tensor([half, half, 0, 0]))


def test_moves_with_the_mesh():
    """A similarity transform of the mesh is one of the Gaussians."""
    vertices, faces, binding, *local = CASES[1].inputs()
    rotation = reference.rotation_of(torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=DOUBLE))
    shift = torch.tensor([1.0, 2, 3], dtype=DOUBLE)
    means, quats, scales = bind_triangles(vertices, faces, binding, *local)
    moved = bind_triangles(2 * vertices @ rotation.T + shift, faces, binding, *local)
    torch.testing.assert_close(moved[0], 2 * means @ rotation.T + shift)
    torch.testing.assert_close(reference.rotation_of(moved[1]), rotation @ reference.rotation_of(quats))
    torch.testing.assert_close(moved[2], 2 * scales)


@pytest.mark.parametrize("case", CASES[1:], ids=str)
def test_same_bits_at_any_number_of_threads(case, threads):
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        inputs = with_gradients(case.inputs(torch.float32))
        out = bind_triangles(*inputs)
        loss = sum((x * x).sum() for x in out) + sum(x.sum() for x in out)
        results.append((*out, *torch.autograd.grad(loss, [inputs[i] for i in FLOATS])))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_gradients_that_are_not_asked_for():
    vertices, faces, binding, *local = CASES[1].inputs()
    all_of_them = with_gradients((vertices, faces, binding, *local))
    want = torch.autograd.grad(sum(x.sum() for x in bind_triangles(*all_of_them)), [all_of_them[i] for i in FLOATS[1:]])
    only_local = tuple(x.clone().requires_grad_() for x in local)
    got = torch.autograd.grad(sum(x.sum() for x in bind_triangles(vertices, faces, binding, *only_local)), only_local)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    scales_only = local[2].clone().requires_grad_()
    bind_triangles(vertices, faces, binding, *local[:2], scales_only)[2].sum().backward()
    assert scales_only.grad.abs().min() > 0


@pytest.mark.parametrize(
    "corners",
    [[[1.0, 1, 1]] * 3, [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 0, 0], [0, 0, 0]]],
    ids=["point", "line", "no-first-edge", "no-height"],
)
def test_triangle_without_area(corners):
    """Axes of the world; everything finite, and the centre still passes its gradient."""
    vertices = torch.tensor([corners], dtype=torch.float32, requires_grad=True)
    local = torch.rand(1, 3, requires_grad=True), torch.tensor([[1.0, 0, 0, 0]], requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    means, quats, scales = bind_triangles(vertices, torch.tensor([[0, 1, 2]]), torch.tensor([0]), *local)
    assert quats[0, 0].tolist() == [1, 0, 0, 0]
    assert torch.all(means.isfinite()) and torch.all(scales >= 0)
    (means.sum() + quats.sum() + scales.sum()).backward()
    torch.testing.assert_close(vertices.grad[0], torch.full((3, 3), 1 / 3))
    assert all(torch.all(x.grad.isfinite()) for x in local)


def test_zero_quaternion_is_no_rotation():
    vertices, faces = one_triangle()
    quats = torch.zeros(1, 4, requires_grad=True)
    args = (vertices, faces, torch.tensor([0]), torch.zeros(1, 3))
    zero = bind_triangles(*args, quats, torch.zeros(1, 3))[1]
    assert torch.equal(zero, bind_triangles(*args, torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 3))[1])
    zero.sum().backward()
    assert torch.all(quats.grad == 0)


NUMBERS = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([0.0, 1e-30, 1e30, -3e38, 200.0, float("inf"), float("nan")]))


@settings(max_examples=60, deadline=None)
@given(
    positions=st.lists(NUMBERS, min_size=12, max_size=12),
    faces=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=3),
    local=st.lists(NUMBERS, min_size=20, max_size=20),
)
def test_any_number_is_survived(positions, faces, local):
    x = torch.tensor(local).reshape(2, 10)
    vertices = torch.tensor(positions).reshape(1, 4, 3).requires_grad_()
    binding = torch.tensor([0, len(faces) - 1])
    out = bind_triangles(vertices, torch.tensor(faces), binding, x[:, :3], x[:, 3:7], x[:, 7:])
    sum(y.sum() for y in out).backward()
    assert vertices.grad.shape == vertices.shape
    assert torch.all((out[2] >= 0) | out[2].isnan())


def test_empty():
    vertices, faces = one_triangle()
    none = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3))
    vertices.requires_grad_()
    means, quats, scales = bind_triangles(vertices, faces, *none)
    assert (means.shape, quats.shape, scales.shape) == ((1, 0, 3), (1, 0, 4), (1, 0, 3))
    means.sum().backward()
    assert torch.all(vertices.grad == 0)
    no_faces = torch.zeros(0, 3, dtype=torch.int64)
    assert bind_triangles(vertices[:, :0], no_faces, *none)[0].shape == (1, 0, 3)
    local = (torch.tensor([0, 0]), torch.ones(2, 3, requires_grad=True), torch.ones(2, 4), torch.zeros(2, 3))
    means = bind_triangles(vertices[:0], faces, *local)[0]
    assert means.shape == (0, 2, 3)
    means.sum().backward()
    assert torch.all(local[1].grad == 0)


def test_not_contiguous():
    vertices, faces, binding, *local = CASES[1].inputs(torch.float32)
    strided = (vertices.mT.contiguous().mT, faces.T.contiguous().T, binding.repeat_interleave(2)[::2], *(x.T.contiguous().T for x in local))
    assert not any(x.is_contiguous() for x in strided)
    for a, b in zip(bind_triangles(*strided), bind_triangles(vertices, faces, binding, *local), strict=True):
        assert torch.equal(a, b)
    leaf = vertices.clone().requires_grad_()
    means = bind_triangles(leaf, faces, binding, *local)[0]
    expanded = torch.ones(1, 1, 1).expand(means.shape)
    a, b = (torch.autograd.grad(means, leaf, v, retain_graph=True)[0] for v in (expanded, expanded.contiguous()))
    assert torch.equal(a, b)


def test_op_is_registered_well():
    inputs = CASES[1].inputs(torch.float32)
    torch.library.opcheck(torch.ops.gafcore.bind_triangles.default, inputs)
    out = torch.ops.gafcore.bind_triangles(*inputs)
    for needs_vertices in (True, False):
        torch.library.opcheck(torch.ops.gafcore.bind_triangles_backward.default, (*inputs, *out, needs_vertices))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vertices=torch.zeros(3, 3)), r"vertices must be \[B, V, 3\] float32 or float64, got \(3, 3\) float32"),
        (dict(faces=torch.tensor([[0, 1, 3]])), r"faces must hold numbers of vertices from 0 to 2, got 3"),
        (dict(binding=torch.tensor([0, 1])), r"binding must hold numbers of faces from 0 to 0, got 1"),
        (dict(binding=torch.tensor([0, -1])), r"binding must hold numbers of faces from 0 to 0, got -1"),
        (dict(binding=torch.zeros(2)), r"binding must be \[N\] int64, got \(2,\) float32"),
        (dict(means=torch.zeros(3, 3)), r"means must be \[N, 3\] float32 with N = 2, got \(3, 3\) float32"),
        (dict(quats=torch.zeros(2, 3)), r"quats must be \[N, 4\] float32 with N = 2, got \(2, 3\) float32"),
        (dict(log_scales=torch.zeros(2, 3).double()), r"log_scales must be \[N, 3\] float32.*, got \(2, 3\) float64"),
        (dict(faces=torch.zeros(1, 3, dtype=torch.int64, device="meta")), r"faces must be on cpu like the other tensors, got .* on meta;"),
        (dict(binding=torch.zeros(2, dtype=torch.int64, device="meta")), r"binding must be on cpu like the other tensors"),
        (dict(means=torch.zeros(2, 3, device="meta")), r"means must be on cpu like the other tensors, got \(2, 3\) float32 on meta"),
    ],
)
def test_wrong_input(change, message):
    vertices, faces = one_triangle()
    args = dict(
        vertices=vertices,
        faces=faces,
        binding=torch.tensor([0, 0]),
        means=torch.zeros(2, 3),
        quats=torch.ones(2, 4),
        log_scales=torch.zeros(2, 3),
    )
    with pytest.raises(ValueError, match=message):
        bind_triangles(**{**args, **change})
