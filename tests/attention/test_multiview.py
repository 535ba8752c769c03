"""Both paths of multi-view attention against float64, outputs and gradients. Without a GPU the kernels run in Triton's interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gafcore.attention import multiview_attention
from tests.reference.multiview_attention import multiview_attention as oracle

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """Sizes; `index` [B] with -1 for a dropped reference, empty where there is none."""

    n_batch: int
    n_queries: int
    n_keys: int
    n_heads: int
    head_dim: int
    n_ref: int = 0
    n_refs: int = 0
    index: tuple[int, ...] = ()
    blocks: tuple[int, ...] = (16, 16)


CASES = {
    "views only": Case(2, 20, 20, 2, 32),
    "one token": Case(1, 1, 1, 1, 32),
    "odd lengths": Case(1, 37, 53, 1, 64, blocks=(16, 32)),
    "80 tokens, 128 channels": Case(1, 80, 80, 1, 128, blocks=(64, 64)),
    "channels that are no power of two": Case(1, 19, 35, 2, 40),
    "a reference each": Case(2, 17, 33, 1, 32, 13, 2, (0, 1)),
    "shared, swapped and dropped references": Case(4, 18, 21, 2, 32, 19, 2, (1, -1, 1, 0)),
    "all references dropped": Case(2, 9, 17, 1, 32, 5, 1, (-1, -1)),
    "blocks larger than the lengths": Case(2, 5, 7, 1, 48, 3, 2, (1, 0), blocks=(64, 32)),
}


def inputs(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v (and ref_k, ref_v) as a fused projection would leave them: slices of one buffer, with strides that are not the shape's."""
    generator = torch.Generator().manual_seed(7)

    def buffer(n_batch: int, length: int, parts: int) -> list[Tensor]:
        # A spare token and a spare head's worth of channels keep the slices from being contiguous.
        x = torch.randn(n_batch, length + 1, parts, case.n_heads + 1, case.head_dim, generator=generator).to(DEVICE, dtype)
        return [x[:, 1:, i, : case.n_heads] for i in range(parts)]

    q = buffer(case.n_batch, case.n_queries, 1)
    kv = buffer(case.n_batch, case.n_keys, 2)
    return q + kv + (buffer(case.n_refs, case.n_ref, 2) if case.n_refs else [])


def truth(case: Case, tensors: list[Tensor], v_out: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.cpu().double().requires_grad_() for x in tensors]
    ref = leaves[3:] if case.n_refs else [None, None]
    out = oracle(*leaves[:3], *ref, list(case.index))
    return out.detach(), list(torch.autograd.grad(out, leaves, v_out.cpu().double(), allow_unused=True))


def compare(case: Case, backend: str, dtype: torch.dtype, tolerance: float) -> None:
    leaves = [x.detach().requires_grad_() for x in inputs(case, dtype)]
    assert case.n_keys == 1 or not leaves[1].is_contiguous()
    index = torch.tensor(case.index, dtype=torch.int64, device=DEVICE) if case.index else None
    out = multiview_attention(*leaves, ref_index=index, backend=backend, blocks=case.blocks)
    v_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    grads = torch.autograd.grad(out, leaves, v_out)
    want, want_grads = truth(case, leaves, v_out)
    assert out.dtype == dtype
    torch.testing.assert_close(out.cpu().double(), want, atol=tolerance, rtol=tolerance)
    for name, got, expected in zip(("q", "k", "v", "ref_k", "ref_v"), grads, want_grads, strict=False):
        expected = torch.zeros_like(got.cpu().double()) if expected is None else expected
        torch.testing.assert_close(got.cpu().double(), expected, atol=3 * tolerance, rtol=3 * tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["triton", "sdpa"])
def test_float32(name, backend):
    compare(CASES[name], backend, torch.float32, 2e-6)


@pytest.mark.parametrize("name", ["odd lengths", "shared, swapped and dropped references"])
def test_float16(name):
    compare(CASES[name], "triton", torch.float16, 2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device: Triton's interpreter has no bfloat16 products")
@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    compare(CASES[name], "triton", torch.bfloat16, 2e-2)


def test_no_gradient_path_gives_the_same_bits():
    case = CASES["shared, swapped and dropped references"]
    index = torch.tensor(case.index, device=DEVICE)
    tensors = inputs(case)
    kept = multiview_attention(*[x.detach().requires_grad_() for x in tensors], ref_index=index, backend="triton", blocks=case.blocks)
    with torch.no_grad():
        free = multiview_attention(*tensors, ref_index=index, backend="triton", blocks=case.blocks)
    assert torch.equal(kept, free)


def test_default_blocks_fit_small_shapes():
    case = CASES["a reference each"]
    tensors = inputs(case)
    index = torch.tensor(case.index, device=DEVICE)
    out = multiview_attention(*tensors, ref_index=index, backend="triton")
    torch.testing.assert_close(out, multiview_attention(*tensors, ref_index=index, backend="sdpa"), atol=2e-6, rtol=2e-6)


def test_a_reference_each_is_the_default():
    case = CASES["a reference each"]
    tensors = inputs(case)
    named = multiview_attention(*tensors, ref_index=torch.tensor([0, 1], device=DEVICE), backend="sdpa")
    assert torch.equal(multiview_attention(*tensors, backend="sdpa"), named)


def test_large_logits_do_not_overflow():
    q, k, v = (torch.full((1, 4, 1, 32), value, device=DEVICE) for value in (100.0, 100.0, 1.0))
    out = multiview_attention(q, k, v, backend="triton")
    torch.testing.assert_close(out, torch.ones_like(out))


def test_wrong_input_says_what_is_wrong():
    q, k, v, ref_k, ref_v = (x.cpu() for x in inputs(CASES["a reference each"]))
    with pytest.raises(ValueError, match=r"k must be \[B, Lk, H, D\] float32 with B = 2.*got \(1, 33, 1, 32\)"):
        multiview_attention(q, k[:1], v)
    with pytest.raises(ValueError, match="go together"):
        multiview_attention(q, k, v, ref_k)
    with pytest.raises(ValueError, match="must have 2 rows, got 1"):
        multiview_attention(q, k, v, ref_k[:1], ref_v[:1])
    with pytest.raises(ValueError, match="float64; use backend='sdpa'"):
        multiview_attention(q.double(), k.double(), v.double(), backend="triton")
    with pytest.raises(ValueError, match="one of sdpa, triton, got 'cudnn'"):
        multiview_attention(q, k, v, backend="cudnn")
    for backend in ("sdpa", "triton"):
        with pytest.raises(ValueError, match="from 0 to 2, got 3"):
            multiview_attention(q, k, v, ref_k, ref_v, torch.tensor([0, 2]), backend=backend)
    with pytest.raises(ValueError, match="at least one token"):
        multiview_attention(q, k[:, :0], v[:, :0])


def test_opcheck():
    case = CASES["a reference each"]
    tensors = [x.contiguous() for x in inputs(case)]
    index = torch.tensor(case.index, device=DEVICE)
    arguments = (*tensors, index, 0.2, list(case.blocks))
    torch.library.opcheck(torch.ops.gafcore.multiview_attention, arguments, test_utils=("test_schema", "test_faketensor"))
    out, lse = torch.ops.gafcore.multiview_attention(*arguments)
    arguments = (*tensors, index, out, lse, torch.ones_like(out), 0.2, list(case.blocks))
    torch.library.opcheck(torch.ops.gafcore.multiview_attention_backward, arguments, test_utils=("test_schema", "test_faketensor"))


def test_log_sum_exp_is_saved():
    case = CASES["a reference each"]
    q, k, v, ref_k, ref_v = inputs(case)
    _, lse = torch.ops.gafcore.multiview_attention(q, k, v, ref_k, ref_v, torch.tensor([1, -1], device=DEVICE), 0.3, [16, 16])
    logits = 0.3 * torch.einsum("qhd,khd->hqk", q[0].double(), torch.cat([k[0], ref_k[1]]).double())
    torch.testing.assert_close(lse[0].double(), torch.logsumexp(logits, -1), atol=1e-5, rtol=1e-5)
    logits = 0.3 * torch.einsum("qhd,khd->hqk", q[1].double(), k[1].double())
    torch.testing.assert_close(lse[1].double(), torch.logsumexp(logits, -1), atol=1e-5, rtol=1e-5)
