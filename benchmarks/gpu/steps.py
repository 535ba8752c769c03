"""Whole frames and training steps of an avatar whose Gaussians are bound to random triangles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measure import Row, called_and_replayed
from benchmarks.gpu.rasterizer import DEVICE, view
from gafcore import bind_triangles, photometric_loss, rasterization
from tests.cases.bindings import BindingCase

COUNTS = (10_000, 50_000, 100_000, 300_000)
SIZE = "802x550"
N_FACES = 10_000


@dataclass(frozen=True)
class Training:
    """`n` Gaussians on 10,000 triangles at 802x550."""

    frame: Callable[[], Tensor]
    step: Callable[[], None]
    meta: Callable[[], dict[str, Any]]  # the rasterizer's, of a frame
    sizes: Callable[[], dict[str, int]]


def training(n: int) -> Training:
    from gafcore.fitting.optim import NamedAdam  # the fit's package needs libraries that no other op does

    vertices, faces, binding, *local = (x.to(DEVICE) for x in BindingCase("", 1, N_FACES, n).inputs(torch.float32))
    vertices, scales = vertices * 0.5, torch.full_like(local[2], -3.0)
    scene = view(n, SIZE, 0, 1)
    viewmats, backgrounds = scene.tensors["viewmats"], scene.tensors["backgrounds"]

    def drawn(means: Tensor, quats: Tensor, log_scales: Tensor, opacities: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, dict]:
        world_means, world_quats, world_scales = bind_triangles(vertices, faces, binding, means, quats, log_scales)
        args = (world_means.squeeze(0), world_quats.squeeze(0), world_scales.squeeze(0), opacities, colors, viewmats)
        return rasterization(*args, scene.Ks, scene.width, scene.height, sh_degree=0, backgrounds=backgrounds)

    def still() -> tuple[Tensor, Tensor, dict]:
        return drawn(local[0], local[1], scales, scene.tensors["opacities"], scene.tensors["colors"])

    target = still()[0].detach() * 0.9
    names = dict(means=local[0], quats=local[1], log_scales=scales)
    names |= dict(opacities=scene.tensors["opacities"].logit(), colors=scene.tensors["colors"])
    adam = NamedAdam({k: v.clone() for k, v in names.items()}, dict.fromkeys(names, 1e-4), 1e-15)

    def step() -> None:
        t = adam.tensors
        l1, ssim = photometric_loss(drawn(t["means"], t["quats"], t["log_scales"], t["opacities"].sigmoid(), t["colors"])[0], target)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        adam.step()

    def sizes() -> dict[str, int]:
        fixed = {"gaussians": n, "cameras": 1, "width": scene.width, "height": scene.height, "sh": 0, "backward": 1, "poses": 1}
        fixed |= {"vertices": vertices.shape[1], "faces": len(faces), "numbers": target.numel()}
        return fixed | {"parameters": sum(x.numel() for x in adam.tensors.values())}

    return Training(lambda: still()[0], step, lambda: still()[2], sizes)


def step_rows() -> list[Row]:
    rows = []
    for n in COUNTS:
        made = training(n)
        facts = dict(gaussians=n, size=SIZE)
        with torch.no_grad():
            rows += called_and_replayed("frame: bind, draw", made.frame, **facts)
        rows += called_and_replayed("training step: bind, draw, loss, backward, adam", made.step, **facts)
    return rows
