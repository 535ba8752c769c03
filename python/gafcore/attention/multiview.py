"""Attention of several views to each other and to a reference picture that is kept in a buffer of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gafcore.attention import launch
from gafcore.attention.choice import BACKENDS, Backend, Shape, choose
from gafcore.native import check

_library = torch.library.Library("gafcore", "FRAGMENT")
_SCHEMAS = {
    "multiview_attention": "(Tensor q, Tensor k, Tensor v, Tensor? ref_k, Tensor? ref_v, Tensor? ref_index, float scale, int[] blocks) "
    "-> (Tensor, Tensor)",
    "multiview_attention_backward": "(Tensor q, Tensor k, Tensor v, Tensor? ref_k, Tensor? ref_v, Tensor? ref_index, Tensor out, "
    "Tensor lse, Tensor v_out, float scale, int[] blocks) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
}
for _name, _schema in _SCHEMAS.items():
    _library.define(_name + _schema)


def _blocks(blocks: list[int]) -> launch.Blocks | None:
    return launch.Blocks(*blocks) if blocks else None


def _forward(q, k, v, ref_k, ref_v, ref_index, scale, blocks):
    _check_index(ref_index, ref_k)
    return launch.forward(q, k, v, ref_k, ref_v, ref_index, scale, _blocks(blocks))


def _backward(q, k, v, ref_k, ref_v, ref_index, out, lse, v_out, scale, blocks):
    v_q, v_k, v_v, *v_ref = launch.backward(q, k, v, ref_k, ref_v, ref_index, out, lse, v_out, scale, _blocks(blocks))
    return v_q, v_k, v_v, *(q.new_empty(0) if x is None else x for x in v_ref)


def _forward_fake(q, k, v, ref_k, ref_v, ref_index, scale, blocks):  # noqa: ARG001
    return q.new_empty(q.shape), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)


def _backward_fake(q, k, v, ref_k, ref_v, ref_index, out, lse, v_out, scale, blocks):  # noqa: ARG001
    return tuple(q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (q, k, v, ref_k, ref_v))


# Triton's interpreter takes CPU tensors: the same code under both keys.
for _key in ("CPU", "CUDA"):
    _library.impl("multiview_attention", _forward, _key)
    _library.impl("multiview_attention_backward", _backward, _key)
torch.library.register_fake("gafcore::multiview_attention", _forward_fake, lib=_library)
torch.library.register_fake("gafcore::multiview_attention_backward", _backward_fake, lib=_library)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, ref_k, ref_v, ref_index, scale, blocks):
        out, lse = torch.ops.gafcore.multiview_attention(q, k, v, ref_k, ref_v, ref_index, scale, blocks)
        ctx.save_for_backward(q, k, v, ref_k, ref_v, ref_index, out, lse)
        ctx.scale, ctx.blocks = scale, blocks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, v_out):
        grads = torch.ops.gafcore.multiview_attention_backward(*ctx.saved_tensors, v_out, ctx.scale, ctx.blocks)
        has_ref = ctx.saved_tensors[3] is not None
        return *grads[:3], *(grads[3:] if has_ref else (None, None)), None, None, None


def _check_index(ref_index: Tensor | None, ref_k: Tensor | None) -> None:
    """Numbers of the reference's rows, or -1. Reading them back would stall a GPU, where the kernel's caller must get them right."""
    if ref_index is not None and ref_k is not None and ref_index.device.type == "cpu":
        check.index_range("ref_index + 1", ref_index + 1, ref_k.shape[0] + 1, "rows of ref_k, plus one for 'none'")


def _sdpa(q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor | None, ref_v: Tensor | None, ref_index: Tensor | None, scale: float) -> Tensor:
    """The same by PyTorch: the reference's keys are gathered to each row of the batch and put behind its own."""
    mask = None
    if ref_k is not None and ref_v is not None and ref_index is None:
        k, v = torch.cat([k, ref_k], 1), torch.cat([v, ref_v], 1)
    elif ref_k is not None and ref_v is not None and ref_index is not None:
        _check_index(ref_index, ref_k)
        rows = ref_index.clamp(min=0)
        k, v = torch.cat([k, ref_k[rows]], 1), torch.cat([v, ref_v[rows]], 1)
        # A mask rules out the flash kernels, so only where something is dropped; but to ask a GPU would be to wait for it.
        if ref_index.device.type != "cpu" or bool((ref_index < 0).any()):
            seen = torch.ones(q.shape[0], k.shape[1], dtype=torch.bool, device=q.device)
            seen[:, -ref_k.shape[1] :] = (ref_index >= 0)[:, None]
            mask = seen[:, None, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def multiview_attention(
    q: Float[Tensor, "B Lq H D"],
    k: Float[Tensor, "B Lk H D"],
    v: Float[Tensor, "B Lk H D"],
    ref_k: Float[Tensor, "R Lr H D"] | None = None,
    ref_v: Float[Tensor, "R Lr H D"] | None = None,
    ref_index: Int[Tensor, "B"] | None = None,
    *,
    scale: float | None = None,
    backend: Backend | None = None,
    blocks: tuple[int, ...] = (),
) -> Float[Tensor, "B Lq H D"]:
    """softmax(scale q [k, ref_k]^T) [v, ref_v], the joint attention of GAF, section 4.1, with the reference's tokens in their own buffer.

    A row of the batch is one head's set of views (all their tokens in a row); with a row a view it is attention within each view. The
    Triton path reads every tensor where it lies: views of a projection's output will do, and a reference that several rows see is neither
    repeated nor put behind their keys.

    Args:
        q: Queries: of the target views, or of all frames.
        k: Keys of the views.
        v: Values of the views.
        ref_k: Keys of the references, one row each. With `ref_v`, or neither.
        ref_v: Values of the references.
        ref_index: For each row of the batch the row of `ref_k` that it sees, -1 for none (a dropped reference); int64. By default row i
            sees reference i. On a GPU the numbers are not checked.
        scale: Of the logits; 1 / sqrt(D) by default.
        backend: "sdpa" or "triton"; by default what `gafcore.attention.choose` says.
        blocks: Tile sizes of the Triton path (queries, keys, warps, stages), for measurements.

    Returns:
        One row for each query, differentiable in all float inputs (once). Same inputs, same bits.

    Raises:
        ValueError: A shape, dtype, device or backend does not fit.
    """
    _check(q, k, v, ref_k, ref_v, ref_index)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    inputs = [x for x in (q, k, v, ref_k, ref_v) if x is not None]
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if backend is None:
        n_ref = 0 if ref_k is None else ref_k.shape[1]
        backend = choose(Shape(q.device, q.dtype, q.shape[3], q.shape[1], k.shape[1], n_ref, gradients)).backend
    if backend == "sdpa":
        return _sdpa(q, k, v, ref_k, ref_v, ref_index, scale)
    if backend != "triton":
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if q.dtype == torch.float64:
        raise ValueError("the Triton kernels take float16, bfloat16 and float32, got float64; use backend='sdpa'")
    if ref_k is not None and ref_index is None:
        ref_index = torch.arange(q.shape[0], device=q.device)
    if gradients:
        return _Fused.apply(q, k, v, ref_k, ref_v, ref_index, scale, list(blocks))
    return torch.ops.gafcore.multiview_attention(q, k, v, ref_k, ref_v, ref_index, scale, list(blocks))[0]


def _check(q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor | None, ref_v: Tensor | None, ref_index: Tensor | None) -> None:
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if not isinstance(q, Tensor) or q.dim() != 4 or q.dtype not in dtypes:
        raise ValueError(f"q must be [B, Lq, H, D] float16, bfloat16, float32 or float64, got {check.describe(q)}")
    sizes = dict(B=q.shape[0], H=q.shape[2], D=q.shape[3])
    check.tensor("k", k, ("B", "Lk", "H", "D"), sizes, like=q)
    check.tensor("v", v, ("B", "Lk", "H", "D"), sizes, like=q)
    if sizes["Lk"] == 0 or sizes["D"] == 0:
        raise ValueError(f"k must have at least one token and one channel, got {check.describe(k)}")
    if (ref_k is None) != (ref_v is None) or (ref_k is None and ref_index is not None):
        raise ValueError("ref_k and ref_v go together, and ref_index needs them; pass both or none")
    if ref_k is None or ref_v is None:
        return
    check.tensor("ref_k", ref_k, ("R", "Lr", "H", "D"), sizes, like=q)
    check.tensor("ref_v", ref_v, ("R", "Lr", "H", "D"), sizes, like=q)
    if ref_index is not None:
        check.tensor("ref_index", ref_index, ("B",), sizes, device=q.device, dtypes=(torch.int64,))
    elif sizes["R"] != sizes["B"]:
        raise ValueError(f"without ref_index every row has its own reference: ref_k must have {sizes['B']} rows, got {sizes['R']}")
