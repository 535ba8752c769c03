from __future__ import annotations

import math

import pytest
import torch

from gafcore import linear_blend_skinning
from tests.cases.skinning import skinning_cases
from tests.reference import skinning as reference

CASES = skinning_cases()
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
DOUBLE = torch.float64
DIFFERENTIABLE = (0, 2, 3, 4)  # all but the weights


def pose(fn, case, inputs):
    vertices, weights, axis_angles, joints, translations = inputs
    return fn(vertices, weights, axis_angles, joints, case.parents, translations)


def gradients(fn, case, inputs, v_posed):
    inputs = [x.clone().requires_grad_(i in DIFFERENTIABLE) for i, x in enumerate(inputs)]
    return torch.autograd.grad((pose(fn, case, inputs) * v_posed).sum(), [inputs[i] for i in DIFFERENTIABLE])


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
def test_forward_matches_reference(case, dtype):
    inputs = case.inputs(dtype)
    got = pose(linear_blend_skinning, case, inputs)
    want = pose(reference.linear_blend_skinning, case, [x.double() for x in inputs])
    torch.testing.assert_close(got.double(), want, **(dict(rtol=1e-12, atol=1e-13) if dtype == DOUBLE else dict(rtol=1e-5, atol=1e-6)))


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
def test_gradients_match_reference(case, dtype):
    inputs = case.inputs(dtype)
    v_posed = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    got = gradients(linear_blend_skinning, case, inputs, v_posed)
    want = gradients(reference.linear_blend_skinning, case, [x.double() for x in inputs], v_posed.double())
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=1e-10 if dtype == DOUBLE else 1e-4, atol=(1e-12 if dtype == DOUBLE else 1e-5) * b.abs().max()
        )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, 0.9999, 1.0001, math.pi, 6.0])
def test_rotations_and_their_gradients_at_any_angle(angle):
    """The formulas change at one radian, and divide by the angle beyond."""
    case = CASES[0]
    vertices, weights, _, joints, translations = case.inputs()
    axis_angles = angle * torch.tensor([[[0.36, -0.48, 0.8]]], dtype=DOUBLE)
    inputs = (vertices, weights, axis_angles, joints, translations)
    torch.testing.assert_close(
        pose(linear_blend_skinning, case, inputs), pose(reference.linear_blend_skinning, case, inputs), rtol=0, atol=1e-14
    )
    v_posed = torch.tensor([[[0.3, -0.7, 0.2]]], dtype=DOUBLE)
    got, want = (gradients(fn, case, inputs, v_posed) for fn in (linear_blend_skinning, reference.linear_blend_skinning))
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_gradcheck(case):
    vertices, weights, *rest = case.inputs()
    inputs = [x.requires_grad_() for x in (vertices, *rest)]
    assert torch.autograd.gradcheck(lambda v, a, j, t: linear_blend_skinning(v, weights, a, j, case.parents, t), inputs, fast_mode=True)


def test_by_hand():
    """Two bones along x: the first turns a quarter about z, the second back again."""
    quarter = math.pi / 2
    vertices = torch.tensor([[[2.0, 0, 0]]]).expand(1, 3, 3)
    weights = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5]])
    axis_angles, joints = torch.tensor([[[0, 0, quarter], [0, 0, -quarter]]]), torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    posed = linear_blend_skinning(vertices, weights, axis_angles, joints, (-1, 0), torch.tensor([[0.0, 0, 5]]))
    torch.testing.assert_close(posed[0], torch.tensor([[0.0, 2, 5], [1, 1, 5], [0.5, 1.5, 5]]), rtol=0, atol=1e-6)


def test_same_bits_at_any_number_of_threads(threads):
    case = type(CASES[0])("many", 2, 5000, (-1, 0, 1, 1, 1))
    inputs, results = case.inputs(torch.float32), []
    for n in (1, 2, 3, 7):
        threads(n)
        posed = pose(linear_blend_skinning, case, inputs)
        results.append((posed, *gradients(linear_blend_skinning, case, inputs, posed)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("n_batch", "n_vertices"), [(0, 5), (2, 0)])
def test_empty(n_batch, n_vertices):
    case = type(CASES[0])("empty", n_batch, n_vertices, (-1, 0))
    inputs = case.inputs(torch.float32)
    assert pose(linear_blend_skinning, case, inputs).shape == (n_batch, n_vertices, 3)
    got = gradients(linear_blend_skinning, case, inputs, torch.ones(n_batch, n_vertices, 3))
    assert all(torch.equal(x, torch.zeros_like(x)) for x in got)


def test_not_contiguous():
    case = CASES[1]
    inputs = case.inputs(torch.float32)
    strided = [x.mT.contiguous().mT if x.dim() > 1 else x for x in inputs]
    assert not all(x.is_contiguous() for x in strided)
    v_posed = torch.ones(1, 1, 1).expand(inputs[0].shape)
    assert torch.equal(pose(linear_blend_skinning, case, strided), pose(linear_blend_skinning, case, inputs))
    for a, b in zip(*(gradients(linear_blend_skinning, case, x, v_posed) for x in (strided, inputs)), strict=True):
        assert torch.equal(a, b)


def test_a_first_call_without_gradients_leaves_later_ones_theirs():
    """Parents are kept from call to call."""
    vertices, weights, axis_angles, joints, translations = CASES[1].inputs(torch.float32)
    parents = (-1, 0, 1, 2, 3)  # of no other test
    with torch.inference_mode():
        want = linear_blend_skinning(vertices, weights, axis_angles, joints, parents, translations)
    posed = linear_blend_skinning(vertices.requires_grad_(), weights, axis_angles, joints, parents, translations)
    posed.sum().backward()
    assert torch.equal(posed, want.clone()) and bool(vertices.grad.isfinite().all())


def test_op_is_registered_well():
    vertices, weights, axis_angles, joints, translations = CASES[1].inputs(torch.float32)
    inputs = (vertices, weights, axis_angles, joints, torch.tensor(CASES[1].parents))
    torch.library.opcheck(torch.ops.gafcore.linear_blend_skinning.default, (*inputs, translations))
    posed, transforms = torch.ops.gafcore.linear_blend_skinning(*inputs, translations)
    torch.library.opcheck(torch.ops.gafcore.linear_blend_skinning_backward.default, (*inputs, transforms, posed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vertices=torch.zeros(3, 3)), r"vertices must be \[B, V, 3\] float32 or float64, got \(3, 3\) float32"),
        (dict(weights=torch.zeros(4, 2)), r"weights must be \[V, J\] float32 with V = 3, got \(4, 2\) float32"),
        (dict(axis_angles=torch.zeros(1, 3, 3)), r"axis_angles must be \[B, J, 3\] float32 with B = 1, J = 2, got \(1, 3, 3\) float32"),
        (dict(joints=torch.zeros(1, 2, 3).double()), r"joints must be \[B, J, 3\] float32.*, got \(1, 2, 3\) float64"),
        (dict(translations=torch.zeros(3)), r"translations must be \[B, 3\] float32 with B = 1, got \(3,\) float32"),
        (dict(parents=(-1,)), r"parents must name one parent for each of the 2 joints, got 1"),
        (dict(parents=(-1, 1)), r"parents must be -1 or the number of an earlier joint, got 1 for joint 1"),
        (dict(parents=(-1, -2)), r"parents must be -1 or the number of an earlier joint, got -2 for joint 1"),
    ],
)
def test_wrong_input(change, message):
    zeros = torch.zeros
    args = dict(vertices=zeros(1, 3, 3), weights=zeros(3, 2), axis_angles=zeros(1, 2, 3), joints=zeros(1, 2, 3), parents=(-1, 0))
    with pytest.raises(ValueError, match=message):
        linear_blend_skinning(**{**args, "translations": zeros(1, 3), **change})
