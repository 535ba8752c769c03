"""Tensors to kernels: block sizes, grids and scratch of the Triton path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """Tile sizes of a kernel: queries, keys, warps. Powers of two, tiles at least 16, which is what a tensor core's product takes."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 2


def default_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """By what fits: shared memory holds `stages` tiles of keys and values, registers a [queries, head_dim] sum in float32.

    A rule, not a measurement: no GPU was at hand (docs/diffusion.md).
    """
    if dtype == torch.float32:
        return Blocks(32, 32)
    return Blocks(128, 64) if head_dim <= 64 else Blocks(64, 64)


def _strides(*tensors: Tensor) -> list[int]:
    return [s for x in tensors for s in x.stride()[:3]]


def _lined_up(x: Tensor) -> Tensor:
    """Channels of a head side by side, as every projection leaves them; anything else is copied."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _sizes(head_dim: int, blocks: Blocks) -> dict[str, int]:
    block_d = max(16, 1 << (head_dim - 1).bit_length())
    return dict(D=head_dim, BLOCK_D=block_d, BLOCK_M=blocks.queries, BLOCK_N=blocks.keys, num_warps=blocks.warps, num_stages=blocks.stages)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ref_k: Tensor | None,
    ref_v: Tensor | None,
    ref_index: Tensor | None,
    scale: float,
    blocks: Blocks | None,
) -> tuple[Tensor, Tensor]:
    """`out` [B, Lq, H, D] and `lse` [B, H, Lq] float32. Shapes are checked by the caller."""
    from gafcore.attention.kernels import forward_kernel

    (n_batch, n_queries, n_heads, head_dim), has_ref = q.shape, ref_k is not None
    blocks = blocks or default_blocks(head_dim, q.dtype)
    q, k, v = map(_lined_up, (q, k, v))
    ref_k, ref_v, ref_index = _reference(k, v, ref_k, ref_v, ref_index)
    out = q.new_empty(q.shape)
    lse = q.new_empty(n_batch, n_heads, n_queries, dtype=torch.float32)
    grid = (-(-n_queries // blocks.queries), n_batch * n_heads)
    forward_kernel[grid](
        q, k, v, ref_k, ref_v, ref_index, out, lse, *_strides(q, k, v, ref_k, ref_v, out),
        n_heads, n_queries, k.shape[1], ref_k.shape[1], scale, HAS_REF=has_ref, **_sizes(head_dim, blocks),
    )  # fmt: skip
    return out, lse


def _reference(k: Tensor, v: Tensor, ref_k: Tensor | None, ref_v: Tensor | None, ref_index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The reference's tensors; without one, stand-ins that the kernel never reads."""
    if ref_k is None or ref_v is None or ref_index is None:
        return k, v, torch.empty(1, dtype=torch.int64, device=k.device)
    return _lined_up(ref_k), _lined_up(ref_v), ref_index.contiguous()


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ref_k: Tensor | None,
    ref_v: Tensor | None,
    ref_index: Tensor | None,
    out: Tensor,
    lse: Tensor,
    v_out: Tensor,
    scale: float,
    blocks: Blocks | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v, ref_k and ref_v."""
    from gafcore.attention.kernels import query_gradient_kernel

    (n_batch, n_queries, n_heads, head_dim), has_ref = q.shape, ref_k is not None
    blocks = blocks or default_blocks(head_dim, q.dtype)
    q, k, v = map(_lined_up, (q, k, v))
    rk, rv, index = _reference(k, v, ref_k, ref_v, ref_index)
    v_out = v_out.contiguous()
    # What the softmax's normalisation takes back: one number a query (FlashAttention-2, section 3.1).
    delta = (out.float() * v_out.float()).sum(-1).transpose(1, 2).contiguous()
    v_q = q.new_empty(q.shape)
    sizes = _sizes(head_dim, blocks)
    query_gradient_kernel[(-(-n_queries // blocks.queries), n_batch * n_heads)](
        q, k, v, rk, rv, index, v_out, lse, delta, v_q, *_strides(q, k, v, rk, rv, v_out),
        n_heads, n_queries, k.shape[1], rk.shape[1], scale, HAS_REF=has_ref, **sizes,
    )  # fmt: skip
    v_k, v_v = _key_gradients(q, k, v, index, v_out, lse, delta, scale, sizes, is_ref=False)
    if not has_ref:
        return v_q, v_k, v_v, None, None
    return v_q, v_k, v_v, *_key_gradients(q, rk, rv, index, v_out, lse, delta, scale, sizes, is_ref=True)


def _key_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    v_out: Tensor,
    lse: Tensor,
    delta: Tensor,
    scale: float,
    sizes: dict[str, int],
    *,
    is_ref: bool,
) -> tuple[Tensor, Tensor]:
    from gafcore.attention.kernels import key_gradient_kernel

    n_rows, n_keys, n_heads, _ = k.shape
    v_k, v_v = k.new_empty(k.shape), v.new_empty(v.shape)
    key_gradient_kernel[(-(-n_keys // sizes["BLOCK_N"]), n_rows * n_heads)](
        q, k, v, index, v_out, lse, delta, v_k, v_v, *_strides(q, k, v, v_out, v_k),
        q.shape[0], n_heads, q.shape[1], n_keys, scale, IS_REF=is_ref, **sizes,
    )  # fmt: skip
    return v_k, v_v
