"""Rows of the rasterizer: called, replayed, with atomic gradients, with half-precision colours, beside gsplat and beside no kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.facts import peer
from benchmarks.gpu.measure import Row, backward, called_and_replayed, failed, row
from gafcore import rasterization
from tests.cases.rasterization import NAMES, head_ball

DEVICE = "cuda"
SIZES = ("512x512", "802x550", "1024x1024")
COUNTS = (10_000, 50_000, 100_000, 300_000)
BATCHES = (1, 4, 16)
FORWARD, BACKWARD = "rasterization forward", "rasterization forward+backward"


@dataclass(frozen=True)
class View:
    """The head ball of `n` Gaussians before `batch` cameras side by side."""

    tensors: dict[str, Tensor]
    Ks: Tensor
    width: int
    height: int
    degree: int
    upstream: Tensor

    def image(self, draw: Callable[..., Any] = rasterization, **options: Any) -> Tensor:
        tensors = self.tensors | {k: options.pop(k) for k in ("colors",) if k in options}
        options = dict(sh_degree=self.degree, backgrounds=tensors["backgrounds"], **options)
        return draw(*(tensors[k] for k in NAMES), self.Ks, self.width, self.height, **options)[0]

    def step(self, draw: Callable[..., Any] = rasterization, **options: Any) -> Callable[[], None]:
        return backward(lambda: (self.image(draw, **options) * self.upstream).sum(), self.leaves())

    def leaves(self) -> list[Tensor]:
        return [self.tensors[k] for k in NAMES[:5]]

    @contextmanager
    def gradients(self) -> Iterator[None]:
        for x in self.leaves():
            x.requires_grad_(True)
        yield
        for x in self.leaves():
            x.requires_grad_(False)


def view(n: int, size: str, degree: int, batch: int) -> View:
    scene, _ = head_ball(n, size, degree)
    tensors = {k: v.to(DEVICE) for k, v in scene.tensors(torch.float32).items()}
    tensors["viewmats"] = tensors["viewmats"].repeat(batch, 1, 1)
    tensors["viewmats"][:, 0, 3] += 0.002 * torch.arange(batch, device=DEVICE)
    tensors["backgrounds"] = tensors["backgrounds"].repeat(batch, 1)
    upstream = torch.randn(batch, scene.height, scene.width, 3, device=DEVICE)
    return View(tensors, scene.Ks.float().to(DEVICE).repeat(batch, 1, 1), scene.width, scene.height, degree, upstream)


def kind_rows(size: str, degree: int, n: int, batch: int) -> list[Row]:
    scene = view(n, size, degree, batch)
    facts = dict(gaussians=n, size=size, sh=degree, batch=batch)
    with torch.no_grad():
        rows = called_and_replayed(FORWARD, scene.image, **facts)
        if degree:
            rows += half_rows(scene, facts)
    with scene.gradients():
        rows += called_and_replayed(BACKWARD, scene.step(), **facts)
        rows += called_and_replayed(f"{BACKWARD}, atomic", scene.step(atomic_gradients=True), **facts)
    return rows + gsplat_rows(scene, facts)


def half_rows(scene: View, facts: dict[str, Any]) -> list[Row]:
    """Harmonics in half precision, and how far the brightest difference of a channel is from the image in single precision."""
    name = f"{FORWARD}, half-precision harmonics"
    colors = scene.tensors["colors"].half()
    try:
        error = float((scene.image(colors=colors) - scene.image()).abs().max())
    except Exception as problem:
        return [failed(name, problem, **facts)]
    rows = called_and_replayed(name, lambda: scene.image(colors=colors), **facts)
    return [r if "error" in r else r | {"largest_image_error": error} for r in rows]


def gsplat_rows(scene: View, facts: dict[str, Any]) -> list[Row]:
    """Not replayed: gsplat asks the device for sizes."""
    if (module := peer("gsplat")) is None:
        return []
    modes: dict[str, Callable[..., Any]] = {
        # Packed, 1.5.3 takes no backgrounds for cameras without a batch dimension (an assertion of its own): less work for it.
        "peer gsplat packed": lambda *a, backgrounds, **k: module.rasterization(*a, **k, packed=True),  # noqa: ARG005
        "peer gsplat dense": lambda *a, **k: module.rasterization(*a, **k, packed=False),
    }
    rows = []
    for name, draw in modes.items():
        with torch.no_grad():
            rows.append(row(f"{name} forward", partial(scene.image, draw), **facts))
        with scene.gradients():
            rows.append(row(f"{name} forward+backward", scene.step(draw), **facts))
    return rows


class Nothing(torch.autograd.Function):
    """A given image, and gradients that nobody wrote: what autograd takes for a step whose op costs nothing."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, *leaves: Tensor) -> Tensor:
        ctx.save_for_backward(*leaves)
        return image.detach()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(torch.empty_like(x) for x in ctx.saved_tensors)


def floor_rows() -> list[Row]:
    """Below this no rasterizer comes that is called through autograd, for a user's loss and torch's own threads are in it."""
    n, size = COUNTS[0], SIZES[0]
    scene = view(n, size, 0, 1)
    with torch.no_grad():
        image = scene.image()
    with scene.gradients():
        step = backward(lambda: (Nothing.apply(image, *scene.leaves()) * scene.upstream).sum(), scene.leaves())
        return [row("a step of no kernels forward+backward", step, gaussians=n, size=size, sh=0, batch=1)]


def groups() -> list[Callable[[], list[Row]]]:
    """Single cameras first, for a run that is cut off; then batches."""
    kinds = [(size, degree, n, batch) for batch, size, degree in itertools.product(BATCHES, SIZES, (0, 3)) for n in COUNTS]
    return [floor_rows, *(partial(kind_rows, *kind) for kind in kinds)]
