"""Inputs of rasterization: small scenes that reach every path, and the head ball that speed is measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


@dataclass(frozen=True)
class Scene:
    """Arguments of one call. `inputs` are the differentiable ones, float64; `options` go by keyword."""

    name: str
    inputs: dict[str, Tensor]
    Ks: Tensor
    width: int
    height: int
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def tensors(self, dtype: torch.dtype = torch.float64, *, grad: bool = False) -> dict[str, Tensor]:
        return {k: v.detach().to(dtype, copy=True).requires_grad_(grad) for k, v in self.inputs.items()}

    def call(self, fn, tensors: dict[str, Tensor]):
        options = dict(self.options)
        if "backgrounds" in tensors:
            options["backgrounds"] = tensors["backgrounds"]
        return fn(*(tensors[k] for k in NAMES), self.Ks.to(tensors["means"].dtype), self.width, self.height, **options)


def scene(
    name: str = "scene", *, n: int = 60, cameras: int = 2, width: int = 45, height: int = 37, seed: int = 0, channels: int = 3,
    sh_degree: int | None = None, scale: float = 0.06, spread: float = 0.2, stretch: float = 0.4, per_camera: bool = False,
    background: bool = True, opacity: float = 0.7, **options,
) -> Scene:  # fmt: skip
    """Random Gaussians about the origin seen from a metre away by cameras with unlike intrinsics, principal points off the centre."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    lead = (cameras,) if per_camera else ()
    viewmats = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    viewmats[:, 2, 3] = 1
    viewmats[:, :3, :3] = torch.linalg.qr(torch.eye(3, dtype=torch.float64) + 0.2 * normal(cameras, 3, 3)).Q
    viewmats[:, :3, :3] *= torch.sign(torch.diagonal(viewmats[:, :3, :3], dim1=1, dim2=2))[:, None]
    viewmats[:, :3, 3] += 0.05 * normal(cameras, 3)
    Ks = torch.zeros(cameras, 3, 3, dtype=torch.float64)
    Ks[:, 0, 0], Ks[:, 1, 1] = 1.3 * width + normal(cameras), 1.3 * width + normal(cameras)
    Ks[:, 0, 2], Ks[:, 1, 2], Ks[:, 2, 2] = width * 0.55 + normal(cameras), height * 0.4 + normal(cameras), 1
    bases = () if sh_degree is None else ((sh_degree + 1) ** 2,)
    inputs = {
        "means": spread * normal(*lead, n, 3),
        "quats": normal(*lead, n, 4),
        "scales": scale * torch.exp(stretch * normal(*lead, n, 3)),
        "opacities": 0.1 + opacity * torch.rand(*lead, n, generator=g, dtype=torch.float64),
        "colors": 0.3 * normal(*lead, n, *bases, channels if sh_degree is None else 3) + (0.5 if sh_degree is None else 0.0),
        "viewmats": viewmats,
    }
    if background:
        inputs["backgrounds"] = torch.rand(cameras, channels if sh_degree is None else 3, generator=g, dtype=torch.float64)
    if sh_degree is not None:
        options["sh_degree"] = sh_degree
    return Scene(name, inputs, Ks, width, height, options)


def faint(scene: Scene) -> Scene:
    """With so little opacity that all of its splats are seen; in place."""
    scene.inputs["opacities"].mul_(0.0085).clamp_(min=0.0045)
    return scene


def faint_in_front(scene: Scene, n: int) -> Scene:
    """The first camera sees through the nearest n splats, and only a few behind them; in place."""
    depths = scene.inputs["means"] @ scene.inputs["viewmats"][0, 2, :3]
    scene.inputs["opacities"].clamp_(min=0.9)[depths.argsort()[:n]] = 0.0045
    return scene


def scenes() -> list[Scene]:
    """Every channel count path, mode, degree; sizes that are no multiple of a tile or block; splats of one pixel and of the whole image."""
    return [
        scene("colors"),
        scene("one_channel", channels=1, cameras=1),
        scene("two_channels", channels=2, rasterize_mode="antialiased"),
        scene("five_channels", channels=5),
        scene("32_channels_depth", channels=32, render_mode="RGB+ED"),
        scene("four_channels_depth", channels=4, render_mode="RGB+D"),
        scene("sh0", sh_degree=0, cameras=1, width=64, height=64),
        scene("sh2", sh_degree=2),
        scene("sh3_depth", sh_degree=3, render_mode="RGB+D", rasterize_mode="antialiased"),
        scene("per_camera", per_camera=True, sh_degree=1, cameras=3),
        scene("depth", render_mode="D"),
        scene("expected_depth", render_mode="ED"),
        scene("small_splats", scale=0.002, n=300, rasterize_mode="antialiased", spread=0.1),
        scene("huge_splats", scale=1.0, n=20, width=130, height=99, opacity=0.3),
        scene("needles", scale=0.02, stretch=2.5, n=60, width=150, height=120, opacity=0.3),
        scene("opaque", n=600, scale=0.1, cameras=1, opacity=0.88),
        scene("wide", width=133, height=3, cameras=1),
        scene("one_pixel", width=1, height=1, cameras=1),
        scene("no_background", background=False),
    ]


def gradient_scenes() -> list[Scene]:
    """Few splats, for gradcheck: it calls the op twice a number."""
    small = dict(n=6, width=14, height=11, cameras=2, scale=0.08, spread=0.12)
    modes = [
        ("RGB", "classic"),
        ("RGB", "antialiased"),
        ("D", "classic"),
        ("ED", "antialiased"),
        ("RGB+D", "antialiased"),
        ("RGB+ED", "classic"),
    ]
    out = [scene(f"{mode}_{raster}", render_mode=mode, rasterize_mode=raster, sh_degree=1, **small) for mode, raster in modes]
    out += [scene("sh3", sh_degree=3, **small), scene("channels", channels=6, render_mode="RGB+D", **small)]
    return [*out, scene("per_camera", per_camera=True, **small), scene("plain", channels=2, **small)]


COLUMN_OPACITY = 0.004  # so little that 2,300 splats of a pixel are seen before it is dark
COLUMN_DEPTHS = ("ulps", "spread", "clusters", "crowd", "equal")


class Column(NamedTuple):
    """Float32 arguments of `rasterization` for images of at most one tile of 16x16 pixels, whose list has every visible splat."""

    tensors: dict[str, Tensor]
    Ks: Tensor
    width: int
    height: int
    ranks: Tensor  # [C, N] how many splats of the same pixel lie in front of each; -1: not visible

    def draw(self, rasterization: Callable) -> tuple:
        """What `rasterization` returns of it."""
        return rasterization(*self.tensors.values(), self.Ks, self.width, self.height)

    def to(self, device: str) -> Column:
        return self._replace(tensors={k: v.to(device) for k, v in self.tensors.items()}, Ks=self.Ks.to(device))


def column_units(n: int, cameras: int, depths: str) -> Tensor:
    """Distances beyond 1 m in units in its last place, of which 2**23 are an octave."""
    g = torch.Generator().manual_seed(n)
    if depths == "equal":
        return torch.zeros(cameras, n, dtype=torch.int32)
    units = torch.randint(0, 1 + n // 2, (cameras, n), generator=g, dtype=torch.int32)
    if depths == "ulps":
        units[:, ::7] += 1 << 24
        return units
    units *= (1 << 23) // max(1, n // 2)
    if depths == "clusters":  # each a thirty-second of the distance between them
        units //= 8
        units[:, ::2] += 1 << 25
    if depths == "crowd":
        units[:, ::3] = 1 << 22
    return units


def column(n: int, cameras: int, depths: str = "ulps", hidden: int = 0) -> Column:
    """Splats behind few pixels of one tile, so that each is seen, and neighbours in depth mostly share a pixel. Of equally far ones the
    first is in front. `hidden`: splats behind the camera, given before the others.

    depths: ulps (most a unit in the last place apart, some in other octaves, some equal), spread (evenly over an octave, some equal),
    clusters (two, far apart), crowd (spread, and a third equal), equal (all).
    """
    units = column_units(n, cameras, depths)
    z = (units + 0x3F800000).view(torch.float32)
    n_pixels = max(1, -(-n // 1500))
    width = min(n_pixels, 16)
    rank = torch.empty(cameras, n, dtype=torch.long)
    rank.scatter_(1, units.long().argsort(dim=1, stable=True), torch.arange(n).expand(cameras, n))
    run, pixel = rank // 32 // n_pixels, rank // 32 % n_pixels  # runs of 32 neighbours take turns
    means = torch.stack([pixel % width / 40 * z, pixel // width / 40 * z, z], -1)
    means = torch.cat([torch.tensor([0.0, 0, -1]).expand(cameras, hidden, 3), means], 1)
    ranks = torch.cat([torch.full((cameras, hidden), -1), 32 * run + rank % 32], 1)
    tensors = {
        "means": means,
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(cameras, n + hidden, 1),
        "scales": (0.01 * means[..., 2:].abs()).repeat(1, 1, 3),
        "opacities": torch.full((cameras, n + hidden), COLUMN_OPACITY),
        "colors": torch.zeros(cameras, n + hidden, 1),
        "viewmats": torch.eye(4).repeat(cameras, 1, 1),
    }
    Ks = torch.tensor([[40.0, 0, 0.5], [0, 40, 0.5], [0, 0, 1]]).repeat(cameras, 1, 1)
    return Column(tensors, Ks, width, -(-n_pixels // width), ranks)


def assert_column_order(columns: Column, v_colors: Tensor) -> None:
    """v_colors: gradient of the image's sum by the colours, which is opacity (1 - opacity)^rank."""
    seen, v_colors = columns.ranks >= 0, v_colors[..., 0].double()
    ranks = torch.log(v_colors[seen] / COLUMN_OPACITY) / np.log1p(-COLUMN_OPACITY)
    assert (ranks - columns.ranks[seen]).abs().max() < 0.1
    assert (v_colors[~seen] == 0).all()


RESOLUTIONS = {"256x256": (256, 256, 640.0), "512x512": (512, 512, 1280.0), "802x550": (802, 550, 2005.0)}  # height, width, focal length
LARGE = {"1024x1024": (1024, 1024, 2560.0)}  # for GPUs


def head_ball(n: int = 50000, resolution: str = "512x512", sh_degree: int = 0, seed: int = 0) -> tuple[Scene, Tensor]:
    """The fixed workload of the speed figures: a ball of Gaussians of 1 to 4 mm, and the upstream gradient [H, W, 3].

    The order of the draws is part of it: direction, radius, scales, quaternions, opacities, harmonics, gradient.
    """
    height, width, focal = (RESOLUTIONS | LARGE)[resolution]
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    means = direction * (0.15 * rng.random(n) ** (1 / 3))[:, None]
    scales = np.exp(np.log(1e-3) + rng.random((n, 3)) * (np.log(4e-3) - np.log(1e-3)))
    quats = rng.normal(size=(n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    opacities = 0.1 + 0.8 * rng.random(n)
    sh = rng.normal(size=(n, 16, 3)) * np.where(np.arange(16) == 0, 0.5, 0.1)[:, None]
    upstream = rng.normal(size=(height, width, 3)) / (height * width)
    viewmat = np.eye(4)
    viewmat[2, 3] = 1
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    arrays = dict(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=sh[:, : (sh_degree + 1) ** 2], viewmats=viewmat[None]
    )
    inputs = {k: torch.tensor(np.ascontiguousarray(v)) for k, v in arrays.items()}
    inputs["backgrounds"] = torch.ones(1, 3, dtype=torch.float64)
    made = Scene(f"head_ball_{n}_{resolution}_{sh_degree}", inputs, K[None], width, height, {"sh_degree": sh_degree})
    return made, torch.tensor(upstream, dtype=torch.float32)
