"""Second half of rasterization: splats blended front to back."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gafcore.native import capturing, empty, launch_fields, scratch_bytes, uses_cuda
from gafcore.ops import pair_room
from gafcore.ops.registry import apply, contiguous, define, new_empty, once, ordinary

_forward_op = define(
    "rasterization_blend(Tensor splats, Tensor depths, Tensor radii, Tensor? features, Tensor? backgrounds, int width, int height, "
    "int n_channels, bool keep) -> (Tensor, Tensor, Tensor, Tensor)"
)
_backward_op = define(
    "rasterization_blend_backward(Tensor splats, Tensor depths, Tensor radii, Tensor? features, Tensor? backgrounds, int width, "
    "int height, int n_channels, Tensor render, Tensor alphas, Tensor kept, Tensor v_render, Tensor? v_alphas, bool absgrad, "
    "bool needs_backgrounds, bool atomic) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _fields(splats, depths, radii, features, backgrounds, width, height, n_channels):
    return dict(
        n_cameras=depths.shape[0],
        n_gaussians=depths.shape[1],
        width=width,
        height=height,
        n_channels=n_channels,
        splats=splats,
        depths=depths,
        radii=radii,
        features=features,
        backgrounds=backgrounds,
    )


def _on_gpu(like: Tensor) -> bool:
    """Doubles have kernels on the CPU only; on a GPU they were refused before."""
    return uses_cuda(like) and like.dtype == torch.float32


@_forward_op.native
def _forward(splats, depths, radii, features, backgrounds, width, height, n_channels, keep):
    inputs = (*contiguous(splats, depths, radii, features, backgrounds), width, height, n_channels)
    fields = _fields(*inputs)
    try:
        render, alphas = (empty(depths.shape[0], height, width, n, like=splats) for n in (n_channels, 1))
    except torch.OutOfMemoryError as error:
        raise _no_memory("the pictures", fields, error) from error
    statistics = splats.new_empty(3, dtype=torch.int64)
    fields.update(render=render, alphas=alphas, statistics=statistics, absgrad=False)
    if _on_gpu(splats):
        kept = _forward_cuda(inputs[0], fields, keep)
    else:
        kept = torch.frombuffer(launch_fields("rasterization_blend_fwd", inputs[0], fields), dtype=torch.uint8)[None]
    return render, alphas, kept, statistics


def _forward_cuda(splats: Tensor, fields: dict, keep: bool) -> Tensor:
    """What backward needs; the first dimension of its shape tells the room there was for pairs."""
    room = pair_room.room_of(splats, *_sizes(fields))
    captured, lacking = capturing(splats), ""
    if not captured:
        room.listen()
    while True:
        capacity = room.capacity  # once: another thread may change it
        try:
            kept = _draw(room, capacity, splats, fields, keep)
        except torch.OutOfMemoryError as error:
            room.give_up()
            if captured or lacking or capacity <= pair_room.STEP:
                raise _no_memory(f"{lacking}, nor without it" if lacking else _room_for(capacity), fields, error) from error
            lacking = f"{_room_for(capacity)} ({str(error).partition(':')[0]})"
            continue  # and the error goes, with the memory that its frames hold
        if lacking and not room.short:
            warnings.warn(f"{_lack(lacking, fields)}. {_WITHOUT_ROOM}. {_ADVICE}", RuntimeWarning, stacklevel=2)
        room.short = bool(lacking) or (room.short and capacity <= pair_room.STEP)
        if captured or not room.send(fields["statistics"]) or lacking:
            return kept


def _draw(room: pair_room.PairRoom, capacity: int, splats: Tensor, fields: dict, keep: bool) -> Tensor:
    rows = capacity // pair_room.STEP
    fields = {**fields, "pair_capacity": capacity, "atomic": False}
    n_bytes = _kept_bytes(room, splats, fields) if keep else 0
    kept = _new_kept(splats, rows, -(-n_bytes // rows))
    if keep:
        fields["kept"] = kept
    launch_fields("rasterization_blend_fwd", splats, fields)
    room.used.update(kept_bytes=n_bytes, scratch_bytes=scratch_bytes())
    return kept


def _new_kept(like: Tensor, rows: int, columns: int) -> Tensor:
    try:
        return like.new_empty(rows, columns, dtype=torch.uint8)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(f"rasterization_blend asked for {rows * columns:,} bytes to keep for backward: {error}") from error


def _kept_bytes(room: pair_room.PairRoom, splats: Tensor, fields: dict) -> int:
    key = (fields["pair_capacity"], fields["n_channels"])
    found = room.kept_bytes.get(key)
    if found is None:
        found = room.kept_bytes[key] = launch_fields("rasterization_blend_kept_bytes", splats, fields)
    return found


_ADVICE = (
    "Draw fewer cameras at a time or smaller pictures, or have memory given back: by gafcore.devices.free_workspaces(), and by "
    "CompiledRenderer.close() where one is kept"
)
_WITHOUT_ROOM = "Frames are drawn without pairs until there is: the same image, but slowly, and gradients whose last bits vary"


def _sizes(fields: dict) -> tuple[int, int, int, int]:
    return fields["n_cameras"], fields["n_gaussians"], fields["width"], fields["height"]


def _room_for(capacity: int) -> str:
    return f"room for {capacity:,} pairs of splats and tiles"


def _lack(what: str, fields: dict) -> str:
    cameras, gaussians, width, height = _sizes(fields)
    return f"rasterization of {cameras} camera(s), {gaussians:,} Gaussians and {width}x{height} pixels found no memory for {what}"


def _no_memory(what: str, fields: dict, error: torch.OutOfMemoryError) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(f"{_lack(what, fields)}: {error}. {_ADVICE}")


@_forward_op.fake
def _forward_fake(splats, depths, radii, features, backgrounds, width, height, n_channels, keep):  # noqa: ARG001
    c = depths.shape[0]
    new, dynamic = splats.new_empty, torch.library.get_ctx().new_dynamic_size  # kept grows with the number of (splat, tile) pairs
    kept = new(dynamic(), dynamic(), dtype=torch.uint8)
    return new(c, height, width, n_channels), new(c, height, width, 1), kept, new(3, dtype=torch.int64)


@_backward_op.native
def _backward(splats, depths, radii, features, backgrounds, width, height, n_channels, render, alphas, kept, v_render, v_alphas, *flags):
    inputs = (*contiguous(splats, depths, radii, features, backgrounds), width, height, n_channels)
    render, alphas, v_render, v_alphas = contiguous(render, alphas, v_render, v_alphas)
    absgrad, needs_backgrounds, atomic = flags
    fields, capacity = _fields(*inputs), kept.shape[0] * pair_room.STEP
    on_gpu = _on_gpu(splats)
    if on_gpu:
        fields.update(pair_capacity=capacity, atomic=atomic)
    try:
        out = _gradients(splats, depths, features, backgrounds, absgrad, needs_backgrounds, empty)
        fields.update(
            absgrad=absgrad,
            render=render,
            alphas=alphas,
            kept=kept,
            v_render=v_render,
            v_alphas=v_alphas,
            v_splats=out[0],
            v_means2d=out[1],
            v_means2d_abs=out[2],
            v_features=out[3],
            v_backgrounds=out[4],
        )
        launch_fields("rasterization_blend_bwd", splats, fields)
    except torch.OutOfMemoryError as error:
        pair_room.drop(splats, *_sizes(fields))  # a frame that needed more may have left more room than the next one needs
        raise _no_memory(f"gradients with {_room_for(capacity)}", fields, error) from error
    if on_gpu and (used := pair_room.found(splats, *_sizes(fields))) is not None:
        used.used["backward_scratch_bytes"] = scratch_bytes()
    return out


def _gradients(splats, depths, features, backgrounds, absgrad, needs_backgrounds, new):
    shapes = (
        splats.shape,
        (*depths.shape, 2),
        (*depths.shape, 2) if absgrad else None,
        None if features is None else features.shape,
        backgrounds.shape if needs_backgrounds else None,
    )
    return tuple(None if shape is None else new(*shape, like=splats) for shape in shapes)


@_backward_op.fake
def _backward_fake(splats, depths, radii, features, backgrounds, *rest):  # noqa: ARG001
    absgrad, needs_backgrounds, _ = rest[-3:]
    return _gradients(splats, depths, features, backgrounds, absgrad, needs_backgrounds, new_empty)


class _Blend(torch.autograd.Function):
    """`means2d` is in the graph only: its values are in `splats`, and it receives its share of the gradient."""

    @staticmethod
    def forward(ctx, eager, splats, means2d, depths, radii, features, backgrounds, width, height, n_channels, absgrad, atomic):
        inputs = (splats, depths, radii, features, backgrounds, width, height, n_channels)
        render, alphas, kept, statistics = _forward_op(*inputs, True, eager=eager)
        ctx.save_for_backward(splats, depths, radii, features, backgrounds, render, alphas, kept)
        ctx.sizes = (width, height, n_channels)
        ctx.absgrad_of = means2d if absgrad else None
        ctx.atomic, ctx.eager = atomic, eager
        ctx.mark_non_differentiable(kept, statistics)
        ctx.set_materialize_grads(False)  # zeros for `kept` would be as large as it
        return render, alphas, kept, statistics  # torch.compile wants to see every output whose size depends on values

    @staticmethod
    @once
    def backward(ctx, v_render, v_alphas, *_):
        splats, depths, radii, features, backgrounds, render, alphas, kept = ctx.saved_tensors
        v_render = torch.zeros_like(render) if v_render is None else v_render
        absgrad, needs_backgrounds = ctx.absgrad_of is not None, ctx.needs_input_grad[6]
        eager = ctx.eager and ordinary(v_render, v_alphas)
        inputs = (splats, depths, radii, features, backgrounds, *ctx.sizes)
        v = _backward_op(*inputs, render, alphas, kept, v_render, v_alphas, absgrad, needs_backgrounds, ctx.atomic, eager=eager)
        if absgrad:
            ctx.absgrad_of.absgrad = v[2]
        return None, v[0], v[1], None, None, None if features is None else v[3], v[4] if needs_backgrounds else None, *[None] * 5


def blend(
    splats: Tensor,
    means2d: Tensor,
    depths: Tensor,
    radii: Tensor,
    features: Tensor | None,
    backgrounds: Tensor | None,
    width: int,
    height: int,
    n_channels: int,
    *,
    absgrad: bool,
    atomic: bool,
    needs_grad: bool,
    eager: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [C, H, W, X], alpha [C, H, W, 1] and statistics [3]: visible splats, (splat, tile) pairs, pairs blended."""
    inputs = (depths, radii, features, backgrounds, width, height, n_channels)
    if needs_grad:
        render, alphas, _, statistics = apply(_Blend, eager, splats, means2d, *inputs, absgrad, atomic, eager=eager)
    else:
        render, alphas, _, statistics = _forward_op(splats, *inputs, False, eager=eager)
    return render, alphas, statistics
