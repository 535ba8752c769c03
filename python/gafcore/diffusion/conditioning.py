"""What the multi-view UNet is told besides the noisy latents: picture tokens, camera poses, channels."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

Condition = Literal["normals", "pose", "none", "warp"]
CONDITIONS: tuple[Condition, ...] = ("normals", "pose", "none", "warp")
NormalAxes = Literal["left_up_back", "right_up_back"]  # where red, green and blue of a ControlNet's normal maps grow
SD_GUIDANCE = 7.5  # diffusers' default for Stable Diffusion; the paper names no scale
POSE_SIZE = 16  # a flattened camera-to-world matrix, as MVDream embeds it


def extra_channels(condition: Condition, latent_channels: int) -> int:
    """Input channels beside the noisy latents.

    Raises:
        ValueError: There is no such condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    return {"normals": latent_channels, "pose": 0, "none": 0, "warp": 2 * latent_channels + 1}[condition]


def pose_vectors(viewmats: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 16"]:
    """Camera-to-world matrices with the position scaled to unit length, flattened: what MVDream's camera embedding takes.

    The axes are ours (OpenCV), where MVDream's are Blender's; a model is trained on one of them.
    """
    rotation = viewmats[..., :3, :3].transpose(-1, -2)
    position = -(rotation @ viewmats[..., :3, 3:])
    position = torch.nn.functional.normalize(position, dim=-2, eps=1e-8)
    last = torch.zeros_like(viewmats[..., :1, :])
    last[..., 3] = 1
    return torch.cat([torch.cat([rotation, position], -1), last], -2).flatten(-2)


class GlobalTokens(nn.Module):
    """CLIP's one embedding of the picture as one token, GAF's "global control"."""

    def __init__(self, clip_dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(clip_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B 1 C"]:
        return self.norm(self.proj(features))[:, None]


class _Read(nn.Module):
    """Learned queries look at the picture's tokens and at each other."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, picture: Tensor, latents: Tensor) -> Tensor:
        picture, latents = self.norm1(picture), self.norm2(latents)
        q = self.to_q(latents)
        k, v = self.to_kv(torch.cat([picture, latents], 1)).chunk(2, -1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.to_out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """CLIP's penultimate layer condensed to a few tokens, with ImageDream's (IP-Adapter-Plus') sizes and parameter names."""

    def __init__(self, clip_dim: int, out_dim: int, *, n_tokens: int = 16, depth: int = 4, heads: int = 12, head_dim: int = 64) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, n_tokens, out_dim) / out_dim**0.5)
        self.proj_in = nn.Linear(clip_dim, out_dim)
        self.layers = nn.ModuleList(nn.ModuleList([_Read(out_dim, heads, head_dim), self._mlp(out_dim)]) for _ in range(depth))
        self.proj_out = nn.Linear(out_dim, out_dim)
        self.norm_out = nn.LayerNorm(out_dim)

    @staticmethod
    def _mlp(dim: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False))

    def forward(self, features: Float[Tensor, "B T D"]) -> Float[Tensor, "B M C"]:
        picture, latents = self.proj_in(features), self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            read, mlp = cast(nn.ModuleList, layer)
            latents = latents + read(picture, latents)
            latents = latents + mlp(latents)
        return self.norm_out(self.proj_out(latents))
