"""First half of rasterization: Gaussians seen by cameras, as splats."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gafcore.native import empty, empty_like, launch_fields
from gafcore.ops.registry import apply, contiguous, define, new_empty, new_like, once, ordinary

GROUP = 16  # rows of `splats` are padded to this many a camera
SPLAT_CHANNELS = 4  # channels that travel in a splat

_SCHEMA = (
    "Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor? colors, Tensor viewmats, Tensor Ks, int width, int height, "
    "int sh_degree, bool append_depth, bool antialiased, float near_plane, float far_plane, float eps2d, float radius_clip, "
    "Tensor? eps2d_at"
)
_forward_op = define(f"rasterization_project({_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")
_backward_op = define(
    f"rasterization_project_backward({_SCHEMA}, Tensor radii, Tensor v_splats, Tensor? v_means2d, Tensor? v_depths, bool needs_colors, "
    "bool needs_viewmats) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


class Splats(NamedTuple):
    """What projection gives; the first three are differentiable. C cameras, N Gaussians."""

    splats: Tensor  # [C 16 ceil(N / 16), 16], the layout of csrc/ops/rasterization.h
    means2d: Tensor  # [C, N, 2] pixels
    depths: Tensor  # [C, N] metres
    radii: Tensor  # [C, N, 2] int32 pixels, 0 where culled
    conics: Tensor  # [C, N, 3] 1/pixels^2
    opacities: Tensor  # [C, N] with the antialiasing compensation
    n_nonfinite: Tensor  # int64


def _fields(
    means, colors, viewmats, width, height, sh_degree, append_depth, antialiased, near_plane, far_plane, eps2d, radius_clip, eps2d_at
):
    return dict(  # one dict, which the caller adds to: merging two takes longer than all it holds
        n_cameras=viewmats.shape[0],
        n_gaussians=means.shape[-2],
        width=width,
        height=height,
        gaussians_per_camera=means.dim() == 3,
        colors_per_camera=colors is not None and colors.dim() == (4 if sh_degree >= 0 else 3),
        antialiased=antialiased,
        append_depth=append_depth,
        sh_degree=sh_degree,
        n_colors=0 if colors is None else colors.shape[-1] * (colors.shape[-2] if sh_degree >= 0 else 1),
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        radius_clip=radius_clip,
        eps2d_at=eps2d_at,
    )


@_forward_op.native
def _forward(means, quats, scales, opacities, colors, viewmats, Ks, width, height, *options):
    means, quats, scales, opacities, colors, viewmats, Ks = contiguous(means, quats, scales, opacities, colors, viewmats, Ks)
    try:
        out = _outputs(means, viewmats, empty)
    except torch.OutOfMemoryError as error:
        lack = f"rasterization of {viewmats.shape[0]} camera(s) and {means.shape[-2]:,} Gaussians found no memory for splats"
        raise torch.OutOfMemoryError(f"{lack}: {error}. Draw fewer cameras at a time") from error
    half = colors is not None and colors.dtype == torch.float16
    fields = _fields(means, colors, viewmats, width, height, *options)
    fields.update(
        means=means,
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=None if half else colors,
        half_colors=colors if half else None,
        viewmats=viewmats,
        Ks=Ks,
        splats=out[0],
        means2d=out[1],
        depths=out[2],
        radii=out[3],
        conics=out[4],
        splat_opacities=out[5],
        n_nonfinite=out[6],
    )
    launch_fields("rasterization_project_fwd", means, fields)
    return out


def _outputs(means: Tensor, viewmats: Tensor, new: Callable[..., Tensor]) -> tuple[Tensor, ...]:
    c, n = viewmats.shape[0], means.shape[-2]
    rows = c * ((n + GROUP - 1) // GROUP) * GROUP
    return (
        new(rows, 16, like=means),
        new(c, n, 2, like=means),
        new(c, n, like=means),
        means.new_empty(c, n, 2, dtype=torch.int32),
        new(c, n, 3, like=means),
        new(c, n, like=means),
        means.new_empty((), dtype=torch.int64),
    )


@_forward_op.fake
def _forward_fake(means, quats, scales, opacities, colors, viewmats, *_):  # noqa: ARG001
    return _outputs(means, viewmats, new_empty)


@_backward_op.native
def _backward(means, quats, scales, opacities, colors, viewmats, Ks, width, height, *rest):
    *options, radii, v_splats, v_means2d, v_depths, needs_colors, needs_viewmats = rest
    means, quats, scales, opacities, colors, viewmats, Ks = contiguous(means, quats, scales, opacities, colors, viewmats, Ks)
    v_splats, v_means2d, v_depths = contiguous(v_splats, v_means2d, v_depths)
    out = _gradients(means, quats, scales, opacities, colors, viewmats, needs_colors, needs_viewmats, empty_like)
    if viewmats.shape[0] == 0:  # the kernel writes a Gaussian's sum with its last camera
        return tuple(None if x is None else x.zero_() for x in out)
    fields = _fields(means, colors, viewmats, width, height, *options)
    fields.update(
        means=means,
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=colors,
        viewmats=viewmats,
        Ks=Ks,
        radii=radii,
        v_splats=v_splats,
        v_means2d=v_means2d,
        v_depths=v_depths,
        v_means=out[0],
        v_quats=out[1],
        v_scales=out[2],
        v_opacities=out[3],
        v_colors=out[4],
        v_viewmats=out[5],
    )
    launch_fields("rasterization_project_bwd", means, fields)
    return out


def _gradients(means, quats, scales, opacities, colors, viewmats, needs_colors, needs_viewmats, new):
    wanted = (means, quats, scales, opacities, colors if needs_colors else None, viewmats if needs_viewmats else None)
    return tuple([None if x is None else new(x) for x in wanted])


@_backward_op.fake
def _backward_fake(means, quats, scales, opacities, colors, viewmats, *rest):
    needs_colors, needs_viewmats = rest[-2:]
    return _gradients(means, quats, scales, opacities, colors, viewmats, needs_colors, needs_viewmats, new_like)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, *args):
        out = _forward_op(*args, eager=eager)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*out[3:])
        ctx.save_for_backward(*args[:7], args[-1], out[3])
        ctx.eager, ctx.options = eager, args[7:-1]
        return out

    @staticmethod
    @once
    def backward(ctx, v_splats, v_means2d, v_depths, *_):
        *inputs, eps2d_at, radii = ctx.saved_tensors
        means, viewmats = inputs[0], inputs[5]
        if v_splats is None:
            rows = viewmats.shape[0] * -(-means.shape[-2] // GROUP) * GROUP
            v_splats = means.new_zeros(rows, 16)
        needs_colors, needs_viewmats = ctx.needs_input_grad[5:7]
        eager = ctx.eager and ordinary(v_splats, v_means2d, v_depths)
        options = (*ctx.options, eps2d_at)
        grads = _backward_op(*inputs, *options, radii, v_splats, v_means2d, v_depths, needs_colors, needs_viewmats, eager=eager)
        return None, *grads[:4], grads[4] if needs_colors else None, grads[5] if needs_viewmats else None, *[None] * 11


def project(*args: object, needs_grad: bool, eager: bool) -> Splats:
    """The op, differentiable where `needs_grad`; arguments as in its schema, checked by `rasterization`."""
    return Splats(*(apply(_Project, eager, *args, eager=eager) if needs_grad else _forward_op(*args, eager=eager)))
