"""What is profiled: a step of each case, and the sizes from which benchmarks/gpu/counts.py counts its kernels' bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu import ops, rasterizer
from benchmarks.gpu.measure import backward
from benchmarks.gpu.tiles import pair_sizes
from gafcore import interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh
from tests.cases.images import ImageCase
from tests.cases.rasterization import NAMES
from tests.cases.skinning import HEAD, SkinningCase

Sizes = dict[str, int]


class Case(NamedTuple):
    step: Callable[[], Any]
    sizes: Callable[[], Sizes]  # asks the device, so not within what is timed


def rasterizer_case(n: int, size: str, degree: int, batch: int = 1) -> Case:
    scene = rasterizer.view(n, size, degree, batch)
    for x in scene.leaves():
        x.requires_grad_()

    def sizes() -> Sizes:
        with torch.no_grad():
            args = [scene.tensors[k] for k in NAMES]
            meta = rasterization(*args, scene.Ks, scene.width, scene.height, sh_degree=degree)[2]
        fixed = {"gaussians": n, "cameras": batch, "width": scene.width, "height": scene.height, "sh": degree, "backward": 1}
        return fixed | pair_sizes(meta)

    return Case(scene.step(), sizes)


def loss_case() -> Case:
    image, target, _ = ImageCase("", (1024, 1024, 3)).inputs(torch.float32)
    x, y = (z.to(ops.DEVICE).expand(4, -1, -1, -1).contiguous() for z in (image, target))
    x.requires_grad_()

    def loss() -> Tensor:
        l1, ssim = photometric_loss(x, y)
        return 0.8 * l1 + 0.2 * (1 - ssim)

    return Case(backward(loss, [x]), lambda: {"numbers": x.numel()})


def mesh_case() -> Case:
    vertices, faces = ops.head_mesh()
    viewmats, Ks = ops.views(512, 4)

    def image() -> Tensor:
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, 512, 512)
        return interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics).square().sum()

    fixed = {"cameras": 4, "width": 512, "height": 512, "vertices": len(vertices), "faces": len(faces), "channels": 3}
    covered = int((rasterize_mesh(vertices, faces, viewmats, Ks, 512, 512).triangle_ids >= 0).sum())
    return Case(backward(image, [vertices]), lambda: fixed | {"covered": covered})


def skinning_case() -> Case:
    """The vertices of a head, four poses."""
    made = SkinningCase("", 4, 5_000, HEAD, angle=0.2).inputs(torch.float32)
    vertices, weights, angles, joints, translations = ops.moved(*made)
    leaves = [x.requires_grad_() for x in (vertices, angles, joints, translations)]
    step = backward(lambda: linear_blend_skinning(vertices, weights, angles, joints, HEAD, translations).sum(), leaves)
    return Case(step, lambda: {"vertices": 5_000, "poses": 4, "joints": len(HEAD)})


def step_case(n: int) -> Case:
    from benchmarks.gpu import steps

    training = steps.training(n)
    return Case(training.step, lambda: training.sizes() | pair_sizes(training.meta()))


def animation_case(n: int = 100_000, size: int = 768) -> Case:
    from benchmarks.gpu import animation  # avatars need libraries that the ops do not

    avatar = animation.with_count(animation.bare_head(), n).to(animation.DEVICE)
    cameras, poses = animation.motion(avatar, size, size)
    renderer = animation.CompiledRenderer(avatar, size, size, graph=False)  # kernel by kernel, as the graph has them
    rig = avatar.rig
    fixed = {
        "gaussians": n,
        "cameras": 1,
        "width": size,
        "height": size,
        "sh": 0,
        "backward": 0,
        "poses": 1,
        "joints": len(rig.joint_regressor),
    }
    fixed |= {"vertices": len(rig.template), "faces": len(rig.faces)}
    draw = lambda: renderer([cameras[7]], poses[7])  # noqa: E731
    return Case(draw, lambda: fixed | pair_sizes(draw().meta))


CASES: dict[str, Callable[[], Case]] = {
    "rasterization 100k 802x550 sh3": lambda: rasterizer_case(100_000, "802x550", 3),
    "rasterization 300k 802x550 sh3": lambda: rasterizer_case(300_000, "802x550", 3),
    "rasterization 10k 512x512 sh0": lambda: rasterizer_case(10_000, "512x512", 0),
    "rasterization 100k 512x512 sh3, 16 cameras": lambda: rasterizer_case(100_000, "512x512", 3, 16),
    "training step 100k 802x550": lambda: step_case(100_000),
    "animated avatar 100k 768x768": animation_case,
    "photometric_loss 4x1024x1024": loss_case,
    "rasterize_mesh + interpolate 4x512x512": mesh_case,
    "linear_blend_skinning 4x5000": skinning_case,
}
