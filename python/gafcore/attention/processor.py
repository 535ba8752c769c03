"""Multi-view attention inside diffusers' `Attention`: a processor, and the layout of the batch that it is told with every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gafcore.attention.multiview import multiview_attention

References = dict[str, tuple[Tensor, Tensor]]
"""Keys and values of the reference picture by the name of the attention layer, [R, Lr, H, D] each."""


@dataclass(frozen=True)
class Views:
    """How frames lie in a UNet's batch [rows * n_frames, ...], and what attends to what: `cross_attention_kwargs={"views": ...}`.

    Attributes:
        n_frames: Frames of one head, side by side in the batch.
        joint: Frames see each other ("3D"); otherwise each sees itself and the input picture.
        input_last: The last of the frames is the input picture (ImageDream's pixel controller).
        record: Put every layer's keys and values into `references`: for the pass over the reference picture itself.
        references: What an earlier pass recorded, for the views' passes; None where the input picture is a frame or absent.
        ref_index: [rows] the reference that each head sees, -1 for none; None where each sees its own.
    """

    n_frames: int
    joint: bool = True
    input_last: bool = False
    record: bool = False
    references: References | None = None
    ref_index: Tensor | None = None

    def recording(self) -> Views:
        """A layout for the pass over reference pictures: each sees itself only."""
        return Views(n_frames=1, record=True, references={})


@dataclass
class MultiViewAttnProcessor:
    """Stands in for diffusers' AttnProcessor2_0, with the same projections. Without `views` it is ordinary attention.

    diffusers' own switch of attention backends passes UNet processors by and refuses names that it does not know, so the choice between
    SDPA and Triton is made in `gafcore.attention.multiview_attention`.
    """

    name: str
    _attention_backend: Any = field(default=None, repr=False)
    _parallel_config: Any = field(default=None, repr=False)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: Views | None = None,
    ) -> Tensor:
        """[rows * n_frames, L, C] to the same shape."""
        if attention_mask is not None or temb is not None or attn.group_norm is not None or attn.spatial_norm is not None:
            raise ValueError(f"{self.name}: masks, and norms inside of attention, are not part of the multi-view UNet")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)) for x in (q, k, v))
        if attn.norm_q is not None or attn.norm_k is not None:
            raise ValueError(f"{self.name}: query and key norms are not part of the multi-view UNet")
        if encoder_hidden_states is not None or views is None:
            out = multiview_attention(q, k, v, scale=attn.scale)
        else:
            out = self._across_views(q, k, v, views, attn.scale)
        out = attn.to_out[1](attn.to_out[0](out.flatten(-2).reshape(hidden_states.shape[0], -1, out.shape[-1] * out.shape[-2])))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

    def _across_views(self, q: Tensor, k: Tensor, v: Tensor, views: Views, scale: float) -> Tensor:
        if views.record:
            assert views.references is not None
            views.references[self.name] = (k, v)
        ref_k, ref_v = views.references[self.name] if views.references and not views.record else (None, None)
        index = views.ref_index if ref_k is not None else None
        rows = q.shape[0] // views.n_frames
        if views.joint:
            # All tokens of a head in a row. A view of the projection's output, not a copy.
            q, k, v = (x.reshape(rows, -1, *x.shape[2:]) for x in (q, k, v))
            return multiview_attention(q, k, v, ref_k, ref_v, index, scale=scale)
        if views.input_last:
            frames_k, frames_v = (x.unflatten(0, (rows, views.n_frames)) for x in (k, v))
            ref_k, ref_v = frames_k[:, -1], frames_v[:, -1]
            index = torch.arange(rows, device=q.device)
        if ref_k is None:
            return multiview_attention(q, k, v, scale=scale)
        index = torch.arange(rows, device=q.device) if index is None else index
        index = index[:, None].expand(-1, views.n_frames).clone()
        if views.input_last:
            index[:, -1] = -1  # the input picture has its own keys already
        return multiview_attention(q, k, v, ref_k, ref_v, index.reshape(-1), scale=scale)
