"""The small prior's network: fills in and corrects the input's colours carried through the rig, four views at once, in pixel space.

Pixels become tokens twice: 4x4 blocks to 16x16 feature maps for the convolutions, and 2x2 of those to 8x8 tokens for attention over
all views and the input picture (GAF's 3D attention). Heads lie in the same place in all pictures, so the input's tokens are also handed
to the views directly, place by place and as their mean: hair colour and style need not be found by attention first.

The answer is a layer of colour laid over the filled warp, nearly transparent before training: training starts from the best that can be
had without learning, and where hair hides the background the network need not know the background's colour to take it away.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, relu, scaled_dot_product_attention, silu

_BLOCK_PX = 4  # side of the block of pixels that the first convolution sees as channels
_FIRST_COVER = -4.0  # logit of the layer's opacity before training: 2 %


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; stored with the weights."""

    size: int = 64
    """Side of the pictures, pixels; a multiple of 8."""
    width: int = 96
    """Channels of the convolutions."""
    token_width: int = 256
    """Channels of a token."""
    conv_blocks: int = 3
    """Residual blocks before, and as many after, attention."""
    attention_blocks: int = 4
    """Transformer blocks."""
    head_width: int = 64
    """Channels of an attention head."""
    views: int = 4
    """Views that are made together."""
    condition: Literal["rig", "pose"] = "rig"
    """What says where a view is: the rig (its normals, and the picture's colours carried through it), or only the place of its camera
    (`pose.py`: no normals, no warp), for comparison."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions around a shift and gain by noise level, added to the input."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "V C h w"], level: Float[Tensor, "V E"]) -> Float[Tensor, "V C h w"]:
        gain, shift = self.modulation(level)[:, :, None, None].chunk(2, 1)
        y = self.conv1(silu(self.norm1(x)))
        y = self.conv2(silu(self.norm2(y) * (1 + gain) + shift))
        return x + y


class AttentionBlock(nn.Module):
    """A transformer block over all tokens of a set: every view sees every other and the input picture."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.n_heads = width // head_width
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.grow, self.shrink = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for last in (self.out, self.shrink):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.shrink(relu(self.grow(self.norm2(x))))


class SmallPriorNetwork(nn.Module):
    """Clean views from noisy ones, or from nothing but the conditions.

    One network serves two tasks, told apart by the noise level: denoising (0 to 1) and regression (`REGRESSION`), where the noisy views
    are absent.
    """

    REGRESSION = -1.0

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:
        super().__init__()
        self.config = c = config
        area, cells, embedding = _BLOCK_PX**2, (c.size // (2 * _BLOCK_PX)) ** 2, 4 * c.width
        self.stem = nn.Conv2d(10 * area, c.width, 3, padding=1)  # noisy 3, fill 3, visibility 1, normals 3
        self.stem_input = nn.Conv2d(6 * area, c.width, 3, padding=1)  # picture 3, normals 3
        self.level = nn.Sequential(nn.Linear(64, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.before = nn.ModuleList(ConvBlock(c.width, embedding) for _ in range(c.conv_blocks))
        self.to_tokens = nn.Conv2d(c.width, c.token_width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 1, cells, c.token_width))
        self.role = nn.Parameter(0.02 * torch.randn(1, 2, 1, c.token_width))  # input picture, target view
        self.here, self.anywhere = nn.Linear(c.token_width, c.token_width), nn.Linear(c.token_width, c.token_width)
        self.attention = nn.ModuleList(AttentionBlock(c.token_width, c.head_width) for _ in range(c.attention_blocks))
        self.from_tokens = nn.Conv2d(c.token_width, 4 * c.width, 1)
        self.join = nn.Conv2d(2 * c.width, c.width, 1)
        self.after = nn.ModuleList(ConvBlock(c.width, embedding) for _ in range(c.conv_blocks))
        self.norm_out, self.out = nn.GroupNorm(8, c.width), nn.Conv2d(c.width, 4 * area, 3, padding=1)
        for last in self.out.parameters():
            nn.init.zeros_(last)

    def forward(
        self,
        noisy: Float[Tensor, "B N 3 H W"],
        level: Float[Tensor, "B"],
        image: Float[Tensor, "B 6 H W"],
        fill: Float[Tensor, "B N 3 H W"],
        conditions: Float[Tensor, "B N 4 H W"],
    ) -> Float[Tensor, "B N 3 H W"]:
        """Colours in -1..1 throughout.

        Args:
            noisy: Views with noise; zeros for regression.
            level: Noise level t of each set, or `REGRESSION`.
            image: The input picture and the rig's normals in its camera; zeros where dropped.
            fill: The warped and filled colours, over which the answer is laid.
            conditions: Visibility and normals.
        """
        b, n = noisy.shape[:2]
        embedded = self.level(_embed(level))
        views = self.stem(pixel_unshuffle(torch.cat([noisy, fill, conditions], 2).flatten(0, 1), _BLOCK_PX))
        views = torch.cat([self.stem_input(pixel_unshuffle(image, _BLOCK_PX)), views])
        levels = torch.cat([embedded, embedded.repeat_interleave(n, 0)])
        for block in self.before:
            views = block(views, levels)
        skip = views[b:]
        views = self._attend(views, b, n)
        views = self.join(torch.cat([views, skip], 1))
        for block in self.after:
            views = block(views, levels[b:])
        layer = pixel_shuffle(self.out(silu(self.norm_out(views))), _BLOCK_PX).unflatten(0, (b, n)).to(fill.dtype)
        return torch.lerp(fill, layer[:, :, :3], torch.sigmoid(layer[:, :, 3:] + _FIRST_COVER))

    def _attend(self, maps: Tensor, b: int, n: int) -> Tensor:
        """[b + b n, C, 16, 16] maps, pictures first, to [b n, C, 16, 16] of the views."""
        tokens = self.to_tokens(maps)
        side = tokens.shape[-1]
        tokens = tokens.flatten(2).transpose(1, 2)
        image, views = tokens[:b, None], tokens[b:].unflatten(0, (b, n))
        views = views + self.here(image) + self.anywhere(image.mean(2, keepdim=True))
        x = torch.cat([image + self.role[:, :1], views + self.role[:, 1:]], 1) + self.place
        x = x.flatten(1, 2)
        for block in self.attention:
            x = block(x)
        x = x.unflatten(1, (n + 1, -1))[:, 1:].flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))
        return pixel_shuffle(self.from_tokens(x), 2)


def _embed(level: Float[Tensor, "B"]) -> Float[Tensor, "B 64"]:
    """Sines and cosines of the level at 32 frequencies."""
    angles = level[:, None] * torch.exp(torch.linspace(0, math.log(200.0), 32, device=level.device)) * math.pi
    return torch.cat([angles.sin(), angles.cos()], -1)
