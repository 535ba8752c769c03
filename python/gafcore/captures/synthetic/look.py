"""What sets one synthetic person apart from another: colours, brows, freckles, stubble, hair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.captures.synthetic.noise import generator, uniform

_DRAWN_STYLES = ("bald", "buzz", "short", "curly", "bob", "bun")
HAIR_STYLES = (*_DRAWN_STYLES, "long")  # never drawn, only asked for: seeds stay who they were

# 8-bit sRGB, from light to dark.
_SKIN = ((242, 204, 180), (226, 178, 148), (190, 140, 110), (142, 97, 72), (92, 61, 46))
_HAIR = ((34, 28, 26), (52, 36, 28), (86, 58, 40), (116, 62, 38), (168, 112, 62), (208, 168, 112))
_IRIS = ((104, 136, 162), (112, 130, 92), (126, 94, 56), (86, 54, 32), (58, 36, 24))


@dataclass(frozen=True)
class Look:
    """Colours are linear RGB; strengths 0..1."""

    skin: Float[Tensor, "3"]
    blood: float
    freckles: float
    stubble: float
    lips: float
    brow_width: float
    brow_density: float
    iris: Float[Tensor, "3"]
    hair: Float[Tensor, "3"]
    hair_style: str


def random_look(seed: int, hair_style: str = "random") -> Look:
    """A person's look by seed.

    Raises:
        ValueError: `hair_style` is neither "random" nor one of HAIR_STYLES.
    """
    if hair_style not in (*HAIR_STYLES, "random"):
        raise ValueError(f"hair style must be 'random' or one of {', '.join(HAIR_STYLES)}, got {hair_style!r}")
    rng = generator(seed, "look")
    tone = uniform(rng, 0, 1)
    dark_features = tone > 0.6  # dark skin goes with dark eyes and hair
    iris = _mix(_IRIS, uniform(rng, 0.6 if dark_features else 0.0, 1.0))
    hair = _mix(_HAIR, uniform(rng, 0.0, 0.25 if dark_features else 1.0))
    drawn = _DRAWN_STYLES[min(int(uniform(rng, 0.35, len(_DRAWN_STYLES))), len(_DRAWN_STYLES) - 1)]
    style = drawn if hair_style == "random" else hair_style
    return Look(
        skin=_mix(_SKIN, tone),
        blood=uniform(rng, 0.5, 1.0),
        freckles=max(0.0, uniform(rng, -1.0, 1.0)) * (1 - tone),
        stubble=max(0.0, uniform(rng, -1.0, 1.0)) * (style not in ("bob", "bun", "long")),
        lips=uniform(rng, 0.4, 1.0),
        brow_width=uniform(rng, 0.75, 1.3),
        brow_density=uniform(rng, 0.65, 0.95),
        iris=iris,
        hair=hair,
        hair_style=style,
    )


def srgb_to_linear(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def color(r: int, g: int, b: int) -> Float[Tensor, "3"]:
    """Linear RGB of an 8-bit sRGB colour."""
    return srgb_to_linear(torch.tensor([r, g, b]) / 255)


def _mix(palette: Sequence[tuple[int, int, int]], t: float) -> Float[Tensor, "3"]:
    position = t * (len(palette) - 1)
    i = min(int(position), len(palette) - 2)
    low, high = color(*palette[i]), color(*palette[i + 1])
    return low + (position - i) * (high - low)
