"""Gaussian splatting with gsplat's names, order and meaning."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.native import check, uses_cuda
from gafcore.ops.rasterization_blend import blend
from gafcore.ops.rasterization_project import SPLAT_CHANNELS, project
from gafcore.ops.registry import ordinary

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")
MAX_SH_DEGREE = 3
TILE_SIZE, CUDA_TILE_SIZE = 32, 16

# Options of gsplat's function that exist for other cameras, machines or memory layouts: only these values have the meaning that we give.
_GSPLAT_ONLY: dict[str, object] = {
    "packed": False,
    "sparse_grad": False,
    "distributed": False,
    "segmented": False,
    "covars": None,
    "camera_model": "pinhole",
    "with_ut": False,
    "with_eval3d": False,
}
_GSPLAT_TUNING = ("tile_size", "channel_chunk")  # no effect on the result, there or here


def _check_options(render_mode: str, rasterize_mode: str, sh_degree: int | None, width: int, height: int, options: dict[str, Any]) -> None:
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be one of {', '.join(RENDER_MODES)}, got {render_mode!r}")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(f"rasterize_mode must be one of {', '.join(RASTERIZE_MODES)}, got {rasterize_mode!r}")
    if sh_degree is not None and not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"sh_degree must be None or from 0 to {MAX_SH_DEGREE}, got {sh_degree}")
    for name, size in (("width", width), ("height", height)):
        check.integer(name, size)
        check.positive(name, size)
    for name, value in options.items():
        if name in _GSPLAT_TUNING:
            continue
        if name not in _GSPLAT_ONLY:
            raise TypeError(f"rasterization() got an unexpected keyword argument {name!r}")
        if value != _GSPLAT_ONLY[name]:
            raise ValueError(f"{name} must be {_GSPLAT_ONLY[name]!r} (gafcore supports no other value), got {value!r}")


def _batched(x: Tensor, dims: int, c: int) -> Tensor:
    return x if x.dim() == dims else x.expand(c, *x.shape)


def _check_gaussians(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sizes: dict[str, int], like: Tensor) -> list[Tensor]:
    """The four with a leading camera dimension all or none."""
    given = (("means", means, ("N", 3)), ("quats", quats, ("N", 4)), ("scales", scales, ("N", 3)), ("opacities", opacities, ("N",)))
    any_per_camera = False
    for name, x, shape in given:
        per_camera = isinstance(x, Tensor) and x.dim() == len(shape) + 1
        check.tensor(name, x, ("C", *shape) if per_camera else shape, sizes, like=like)
        any_per_camera |= per_camera
    if not any_per_camera:
        return [means, quats, scales, opacities]
    return [_batched(x, len(shape) + 1, sizes["C"]) for _, x, shape in given]


def _check_colors(colors: Tensor | Any, sh_degree: int | None, sizes: dict[str, int], like: Tensor) -> Tensor:
    per_camera = ("C",) if isinstance(colors, Tensor) and colors.dim() == (3 if sh_degree is None else 4) else ()
    if sh_degree is None:
        check.tensor("colors", colors, (*per_camera, "N", "D"), sizes, like=like)
        if sizes["D"] == 0:
            raise ValueError(f"colors must have at least one channel, got {check.describe(colors)}")
        return colors
    if isinstance(colors, Tensor) and colors.dtype == torch.float16:
        check.tensor("colors", colors, (*per_camera, "N", "K", 3), sizes, device=like.device, dtypes=(torch.float16,))
    else:
        check.tensor("colors", colors, (*per_camera, "N", "K", 3), sizes, like=like)
    bases = (sh_degree + 1) ** 2
    if sizes["K"] < bases:
        raise ValueError(f"colors must hold at least {bases} coefficients for sh_degree {sh_degree}, got {check.describe(colors)}")
    return colors if sizes["K"] <= 16 else colors[..., :bases, :]


def _features(colors: Tensor | None, depths: Tensor, with_depth: bool) -> Tensor:
    c, n = depths.shape
    parts = [] if colors is None else [_batched(colors, 3, c)]
    if with_depth:
        parts.append(depths[..., None])
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0].expand(c, n, -1)


def _expected_depth(render: Tensor, alphas: Tensor) -> Tensor:
    depth = render[..., -1:] / alphas.clamp(min=1e-10)
    return torch.cat([render[..., :-1], depth], -1) if render.shape[-1] > 1 else depth


def _requires_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def rasterization(
    means: Float[Tensor, "*C N 3"],
    quats: Float[Tensor, "*C N 4"],
    scales: Float[Tensor, "*C N 3"],
    opacities: Float[Tensor, "*C N"],
    colors: Float[Tensor, "..."] | None,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float | Float[Tensor, ""] = 0.3,
    sh_degree: int | None = None,
    *,
    backgrounds: Float[Tensor, "C D"] | None = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    absgrad: bool = False,
    atomic_gradients: bool = False,
    **gsplat_options: Any,
) -> tuple[Float[Tensor, "C H W X"], Float[Tensor, "C H W 1"], dict[str, Any]]:
    """Render 3D Gaussians with C pinhole cameras: EWA splatting as in gsplat 1.5 (csrc/math, docs/kernels/rasterization.md).

    Args:
        means: World positions, metres. Like the next three: shared by the cameras, or one set a camera with a leading C.
        quats: Rotations wxyz of any length; zero counts as not finite.
        scales: Standard deviations, metres.
        opacities: In 0..1.
        colors: Any number of channels [N, D], or with `sh_degree` spherical harmonics [N, K, 3]; also with a leading C. May be None where
            only depth is rendered. Harmonics may be float16, which a GPU without gradients reads as they are, at half the traffic.
        viewmats: World to camera (OpenCV: x right, y down, z forward).
        Ks: Intrinsics, pixels; no gradient.
        width: Pixels.
        height: Pixels.
        near_plane: Gaussians whose mean is nearer are left out, metres.
        far_plane: And those farther.
        radius_clip: Gaussians whose radius is at most this are left out, pixels.
        eps2d: Blur added to the screen-space covariance, pixels^2. A tensor is read where it lies, and a replayed CUDA graph may
            find another number there; no gradient.
        sh_degree: None, or the degree 0..3 to evaluate towards each camera.
        backgrounds: One colour a camera; depth has background 0.
        render_mode: Channels of the image: colours, accumulated depth (D) or expected depth (ED), or colours then depth.
        rasterize_mode: "antialiased" keeps the mass of splats below a pixel constant.
        absgrad: Backward sets `meta["means2d"].absgrad` [C, N, 2], sums of absolute values of the pixels' gradients.
        atomic_gradients: On a GPU, backward sums with float atomics, whose bits differ from run to run.
        **gsplat_options: gsplat's other options, at the one value supported; `tile_size` and `channel_chunk` are ignored.

    Returns:
        Image and alpha, differentiable in every float input but Ks, with the same bits at any number of threads; and meta: `means2d`
        (call `.retain_grad()` for the screen-space gradient) and `depths` in the graph, `radii` (0 where culled), `conics`, `opacities`
        (with the compensation), `width`, `height`, `n_cameras`, `tile_size`, `tile_width`, `tile_height`, and int64 tensors `n_visible`,
        `n_nonfinite` (Gaussians left out because a number of theirs is NaN or infinite), `n_pairs` of splats and tiles and
        `n_pairs_blended` of them before their tile was opaque.

    Raises:
        TypeError: An argument is not a tensor, a size not an integer, or a keyword unknown.
        ValueError: A shape, dtype, device or option does not fit.
        torch.OutOfMemoryError: Of a GPU; the message says what asked for how much. Where memory lacks for nothing but pairs of splats and
            tiles, the image is drawn without them, slowly, and a RuntimeWarning says so (`gafcore.devices.free_workspaces`).
    """
    _check_options(render_mode, rasterize_mode, sh_degree, width, height, gsplat_options)
    sizes = check.tensor("viewmats", viewmats, ("C", 4, 4))
    check.tensor("Ks", Ks, ("C", 3, 3), sizes, like=viewmats)
    means, quats, scales, opacities = _check_gaussians(means, quats, scales, opacities, sizes, viewmats)
    with_color, with_depth, c = "RGB" in render_mode, "D" in render_mode, sizes["C"]
    colors = _check_colors(colors, sh_degree, sizes, means) if with_color else None
    n_color = 0 if colors is None else colors.shape[-1]
    n_channels = n_color + with_depth
    backgrounds = _check_backgrounds(backgrounds, c, n_color, with_depth, means)

    fused = n_channels <= SPLAT_CHANNELS
    if absgrad and not fused:
        raise ValueError(f"absgrad needs at most {SPLAT_CHANNELS} channels, colours and depth together, got {n_channels}")
    # Channels beside the splats are blended by `blend`; projection looks at them only to leave out Gaussians that are not finite.
    splat_colors = colors if fused or colors is None else colors.detach()
    degree = sh_degree if sh_degree is not None and splat_colors is not None else -1
    antialiased = rasterize_mode == "antialiased"
    if colors is not None and colors.dtype != means.dtype and (not uses_cuda(means) or torch.is_grad_enabled()):
        splat_colors = colors = colors.to(means.dtype)
    differentiable = _requires_grad(means, quats, scales, opacities, splat_colors, viewmats)
    eps2d_at = eps2d if isinstance(eps2d, Tensor) else None
    if eps2d_at is not None:
        check.tensor("eps2d", eps2d_at, (), sizes, like=means)
    eager = ordinary(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, eps2d_at)
    s = project(
        *(means, quats, scales, opacities, splat_colors, viewmats, Ks, width, height, degree, with_depth and fused, antialiased),
        *(float(near_plane), float(far_plane), 0.0 if isinstance(eps2d, Tensor) else float(eps2d), float(radius_clip), eps2d_at),
        needs_grad=differentiable,
        eager=eager,
    )
    features = None if fused else _features(colors, s.depths, with_depth)
    render, alphas, statistics = blend(
        *(s.splats, s.means2d, s.depths, s.radii, features, backgrounds, width, height, n_channels),
        absgrad=absgrad,
        atomic=atomic_gradients,
        needs_grad=differentiable or _requires_grad(features, backgrounds),
        eager=eager,
    )
    if "ED" in render_mode:
        render = _expected_depth(render, alphas)
    n_visible, n_pairs, n_pairs_blended = statistics.unbind()
    tile_size = CUDA_TILE_SIZE if uses_cuda(means) and means.dtype == torch.float32 else TILE_SIZE
    meta = {
        "radii": s.radii,
        "means2d": s.means2d,
        "depths": s.depths,
        "conics": s.conics,
        "opacities": s.opacities,
        "width": width,
        "height": height,
        "n_cameras": c,
        "tile_size": tile_size,
        "tile_width": -(-width // tile_size),
        "tile_height": -(-height // tile_size),
        "n_visible": n_visible,
        "n_nonfinite": s.n_nonfinite,
        "n_pairs": n_pairs,
        "n_pairs_blended": n_pairs_blended,
    }
    return render, alphas, meta


def _check_backgrounds(backgrounds: Tensor | None, c: int, n_color: int, with_depth: bool, like: Tensor) -> Tensor | None:
    """With a zero for depth appended."""
    if backgrounds is None or n_color == 0:
        return None
    check.tensor("backgrounds", backgrounds, ("C", "D"), {"C": c, "D": n_color}, like=like)
    return torch.cat([backgrounds, backgrounds.new_zeros(c, 1)], -1) if with_depth else backgrounds
