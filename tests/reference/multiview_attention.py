"""Attention over views and a reference, written out row by row in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def multiview_attention(q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor | None, ref_v: Tensor | None, ref_index: list[int]) -> Tensor:
    """[B, Lq, H, D]; `ref_index` has -1 where a row sees no reference."""
    rows = []
    for b in range(q.shape[0]):
        keys, values = k[b], v[b]
        if ref_k is not None and ref_v is not None and ref_index[b] >= 0:
            keys, values = torch.cat([keys, ref_k[ref_index[b]]]), torch.cat([values, ref_v[ref_index[b]]])
        logits = torch.einsum("qhd,khd->hqk", q[b], keys) / q.shape[-1] ** 0.5
        weights = torch.exp(logits - logits.max(-1, keepdim=True).values)
        rows.append(torch.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdim=True), values))
    return torch.stack(rows)
