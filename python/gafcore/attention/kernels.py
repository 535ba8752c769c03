"""Triton kernels of multi-view attention. Imported only when they are used: Triton is in the extra `diffusion`.

Every kernel sees keys in two places, the views' buffer and the reference's, and walks both with one running softmax. A tensor is given
by its pointer and three strides (batch, token, head); channels of a head lie side by side. `ref_index` [B] names the row of the
reference's buffer that a row of the batch sees; -1 is none. Softmax runs in base 2, sums in float32. No atomics: every output has one
program that sums it in a fixed order, so the same inputs give the same bits.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(base, rows, n_rows, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows of one head, [len(rows), BLOCK_D]; zero past the last token and past channel D."""
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n_rows) & (columns[None, :] < D)
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store_tile(base, value, rows, n_rows, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n_rows) & (columns[None, :] < D)
    tl.store(base + rows[:, None] * stride + columns[None, :], value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _head(ptr, batch, head, stride_batch, stride_head):
    """Start of one head of one row of the batch; 64 bits, since buffers of several views pass 2^31 elements."""
    return ptr + batch.to(tl.int64) * stride_batch + head * stride_head


@triton.jit
def _attend(q, top, total, mix, k, v, n_keys, k_stride, v_stride, scale, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr):
    """One buffer of keys added to a running softmax: `top` [M] largest logit, `total` [M] sum, `mix` [M, BLOCK_D] weighted values."""
    for start in range(0, n_keys, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k_tile = _tile(k, keys, n_keys, k_stride, D, BLOCK_D)
        logits = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * scale
        logits = tl.where(keys[None, :] < n_keys, logits, -float("inf"))
        new_top = tl.maximum(top, tl.max(logits, 1))
        p = tl.exp2(logits - new_top[:, None])
        decay = tl.exp2(top - new_top)
        v_tile = _tile(v, keys, n_keys, v_stride, D, BLOCK_D)
        mix = mix * decay[:, None] + tl.dot(p.to(v_tile.dtype), v_tile, input_precision="ieee")
        total = total * decay + tl.sum(p, 1)
        top = new_top
    return top, total, mix


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, ref_k_ptr, ref_v_ptr, ref_index_ptr, out_ptr, lse_ptr,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, rk_b, rk_l, rk_h, rv_b, rv_l, rv_h, o_b, o_l, o_h,
    n_heads, n_queries, n_keys, n_ref, softmax_scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_REF: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of queries, batch * heads). Writes `out` [B, Lq, H, D] and the natural log-sum-exp `lse` [B, H, Lq]."""
    batch = tl.program_id(1) // n_heads
    head = tl.program_id(1) % n_heads
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _tile(_head(q_ptr, batch, head, q_b, q_h), rows, n_queries, q_l, D, BLOCK_D)
    scale = softmax_scale * LOG2E
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mix = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    k, v = _head(k_ptr, batch, head, k_b, k_h), _head(v_ptr, batch, head, v_b, v_h)
    top, total, mix = _attend(q, top, total, mix, k, v, n_keys, k_l, v_l, scale, D, BLOCK_D, BLOCK_N)
    if HAS_REF:
        ref = tl.load(ref_index_ptr + batch)
        if ref >= 0:
            k, v = _head(ref_k_ptr, ref, head, rk_b, rk_h), _head(ref_v_ptr, ref, head, rv_b, rv_h)
            top, total, mix = _attend(q, top, total, mix, k, v, n_ref, rk_l, rv_l, scale, D, BLOCK_D, BLOCK_N)
    _store_tile(_head(out_ptr, batch, head, o_b, o_h), mix / total[:, None], rows, n_queries, o_l, D, BLOCK_D)
    tl.store(lse_ptr + tl.program_id(1).to(tl.int64) * n_queries + rows, (top + tl.log2(total)) / LOG2E, mask=rows < n_queries)


@triton.jit
def _query_gradient(
    v_q, q, v_out, lse, delta, k, v, n_keys, k_stride, v_stride, scale, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Adds one buffer's share of the gradient of a block of queries (without the softmax scale)."""
    for start in range(0, n_keys, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k_tile = _tile(k, keys, n_keys, k_stride, D, BLOCK_D)
        v_tile = _tile(v, keys, n_keys, v_stride, D, BLOCK_D)
        logits = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * scale
        p = tl.where(keys[None, :] < n_keys, tl.exp2(logits - lse[:, None]), 0.0)
        v_p = tl.dot(v_out, tl.trans(v_tile), input_precision="ieee")
        v_q += tl.dot((p * (v_p - delta[:, None])).to(k_tile.dtype), k_tile, input_precision="ieee")
    return v_q


@triton.jit
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, ref_k_ptr, ref_v_ptr, ref_index_ptr, v_out_ptr, lse_ptr, delta_ptr, v_q_ptr,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, rk_b, rk_l, rk_h, rv_b, rv_l, rv_h, o_b, o_l, o_h,
    n_heads, n_queries, n_keys, n_ref, softmax_scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_REF: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of queries, batch * heads). `v_out` and `v_q` have the strides o_*."""
    batch = tl.program_id(1) // n_heads
    head = tl.program_id(1) % n_heads
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _tile(_head(q_ptr, batch, head, q_b, q_h), rows, n_queries, q_l, D, BLOCK_D)
    v_out = _tile(_head(v_out_ptr, batch, head, o_b, o_h), rows, n_queries, o_l, D, BLOCK_D)
    line = tl.program_id(1).to(tl.int64) * n_queries + rows
    lse = tl.load(lse_ptr + line, mask=rows < n_queries, other=0.0) * LOG2E
    delta = tl.load(delta_ptr + line, mask=rows < n_queries, other=0.0)
    scale = softmax_scale * LOG2E
    v_q = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    k, v = _head(k_ptr, batch, head, k_b, k_h), _head(v_ptr, batch, head, v_b, v_h)
    v_q = _query_gradient(v_q, q, v_out, lse, delta, k, v, n_keys, k_l, v_l, scale, D, BLOCK_D, BLOCK_N)
    if HAS_REF:
        ref = tl.load(ref_index_ptr + batch)
        if ref >= 0:
            k, v = _head(ref_k_ptr, ref, head, rk_b, rk_h), _head(ref_v_ptr, ref, head, rv_b, rv_h)
            v_q = _query_gradient(v_q, q, v_out, lse, delta, k, v, n_ref, rk_l, rv_l, scale, D, BLOCK_D, BLOCK_N)
    _store_tile(_head(v_q_ptr, batch, head, o_b, o_h), v_q * softmax_scale, rows, n_queries, o_l, D, BLOCK_D)


@triton.jit
def _key_gradient(
    v_k, v_v, k, v, q, v_out, lse_ptr, delta_ptr, n_queries, q_stride, o_stride, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Adds one row of the batch's share of the gradients of a block of keys (`v_k` without the softmax scale)."""
    for start in range(0, n_queries, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        q_tile = _tile(q, rows, n_queries, q_stride, D, BLOCK_D)
        v_out_tile = _tile(v_out, rows, n_queries, o_stride, D, BLOCK_D)
        lse = tl.load(lse_ptr + rows, mask=rows < n_queries, other=0.0) * LOG2E
        delta = tl.load(delta_ptr + rows, mask=rows < n_queries, other=0.0)
        logits = tl.dot(k, tl.trans(q_tile), input_precision="ieee") * scale
        p = tl.where(rows[None, :] < n_queries, tl.exp2(logits - lse[None, :]), 0.0)
        v_v += tl.dot(p.to(v_out_tile.dtype), v_out_tile, input_precision="ieee")
        v_p = tl.dot(v, tl.trans(v_out_tile), input_precision="ieee")
        v_k += tl.dot((p * (v_p - delta[None, :])).to(q_tile.dtype), q_tile, input_precision="ieee")
    return v_k, v_v


@triton.jit
def key_gradient_kernel(
    q_ptr, k_ptr, v_ptr, ref_index_ptr, v_out_ptr, lse_ptr, delta_ptr, v_k_ptr, v_v_ptr,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, o_b, o_l, o_h, g_b, g_l, g_h,
    n_batch, n_heads, n_queries, n_keys, softmax_scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, IS_REF: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of keys, rows of the key buffer * heads). `v_k`, `v_v` have the strides g_*.

    For the views' buffer a row belongs to one row of the batch. For the reference's (IS_REF) every row of the batch that sees it adds
    its share.
    """
    row = tl.program_id(1) // n_heads
    head = tl.program_id(1) % n_heads
    keys = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = _tile(_head(k_ptr, row, head, k_b, k_h), keys, n_keys, k_l, D, BLOCK_D)
    v = _tile(_head(v_ptr, row, head, v_b, v_h), keys, n_keys, v_l, D, BLOCK_D)
    v_k = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    v_v = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    n_rows = n_batch if IS_REF else 1
    for i in range(n_rows):
        batch = row * (1 - IS_REF) + i
        seen = True
        if IS_REF:
            seen = tl.load(ref_index_ptr + batch) == row
        if seen:
            q = _head(q_ptr, batch, head, q_b, q_h)
            v_out = _head(v_out_ptr, batch, head, o_b, o_h)
            line = (batch.to(tl.int64) * n_heads + head) * n_queries
            v_k, v_v = _key_gradient(
                v_k, v_v, k, v, q, v_out, lse_ptr + line, delta_ptr + line, n_queries, q_l, o_l, softmax_scale * LOG2E, D, BLOCK_D, BLOCK_M
            )
    _store_tile(_head(v_k_ptr, row, head, g_b, g_h), v_k * softmax_scale, keys, n_keys, g_l, D, BLOCK_D)
    _store_tile(_head(v_v_ptr, row, head, g_b, g_h), v_v, keys, n_keys, g_l, D, BLOCK_D)
