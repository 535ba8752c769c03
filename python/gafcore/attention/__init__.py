"""Attention across views: the function, its two implementations, and the processor that puts it into diffusers' UNet."""

from gafcore.attention.choice import Choice, Shape, choose, use_backend
from gafcore.attention.multiview import multiview_attention

__all__ = ["Choice", "Shape", "choose", "multiview_attention", "use_backend"]
