"""Pictures as a pipeline's caller has them, to tensors and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

# CLIP's own preprocessing (Radford et al. 2021).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _tensor(name: str, pictures: Any) -> Tensor:
    if isinstance(pictures, Image.Image):
        return torch.from_numpy(np.asarray(pictures.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
    if isinstance(pictures, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(pictures)).float().movedim(-1, -3)
    if isinstance(pictures, Tensor):
        return pictures.float()
    if isinstance(pictures, (list, tuple)) and pictures:
        return torch.stack([_tensor(name, p) for p in pictures])
    raise ValueError(f"{name} must be a tensor, an array, PIL images or a list of them, got {type(pictures).__name__}")


def to_tensor(name: str, pictures: Any, n_dims: int) -> Tensor:
    """Float pictures, channels first, from tensors [.., C, H, W], arrays [.., H, W, C] or PIL images (nested lists of them).

    Args:
        name: What the caller calls them.
        pictures: One of the above; PIL images become 0..1.
        n_dims: Dimensions wanted: one more than given is added in front for a single item.

    Raises:
        ValueError: It is none of these.
    """
    x = _tensor(name, pictures)
    if x.dim() == n_dims - 1:
        x = x[None]
    if x.dim() != n_dims or x.shape[-3] != 3:
        shape = {4: "[3, H, W] or [B, 3, H, W]", 5: "[N, 3, H, W] or [B, N, 3, H, W]"}.get(n_dims, f"{n_dims}-dimensional")
        raise ValueError(f"{name} must be {shape} with channels first (last in arrays), got {list(x.shape)}")
    return x


def is_single(picture: Any) -> bool:
    """Whether the caller gave one picture, not a batch."""
    return isinstance(picture, Image.Image) or (isinstance(picture, (np.ndarray, Tensor)) and picture.ndim == 3)


def clip_pixels(pictures: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 s s"]:
    """Pictures in 0..1 as CLIP takes them: bicubic to its size, normalised. Instead of a feature extractor, to run on any device."""
    small = torch.nn.functional.interpolate(pictures.float(), (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.tensor(v, device=small.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return (small - mean) / std


def from_tensor(x: Float[Tensor, "*B N 3 H W"], output_type: str) -> Any:
    """Pictures in 0..1 as "pt", "np" (channels last) or "pil" (lists)."""
    if output_type == "pt":
        return x
    array = x.float().movedim(-3, -1).cpu().numpy()
    if output_type == "np":
        return array

    def images(a: np.ndarray) -> Any:
        return Image.fromarray((255 * a).round().astype(np.uint8)) if a.ndim == 3 else [images(b) for b in a]

    return images(array)
