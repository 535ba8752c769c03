"""The avatar of GAF and GaussianAvatars: Gaussians that live in the frames of a rig's triangles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.cameras import stack
from gafcore.ops import bind_triangles, rasterization
from gafcore.rigs import Rig
from gafcore.types import Camera, Gaussians, RigParams

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
PARAMETERS = ("means", "quats", "log_scales", "opacity_logits", "sh")


@dataclass(frozen=True)
class RiggedAvatar:
    """N Gaussians bound to the triangles of `rig`, with the rig's parameters over T timesteps.

    A local mean of 1 is one triangle size away from the triangle's centroid; a local scale of 1 is one triangle size
    (`gafcore.ops.bind_triangles` defines the frame and the size).

    Attributes:
        rig: The mesh that moves the Gaussians.
        params: Shape of the person, and pose over T timesteps.
        binding: Triangle of each Gaussian.
        means: In the triangle's frame, in triangle sizes.
        quats: wxyz in the triangle's frame, of any length.
        log_scales: Logarithm of the standard deviations, in triangle sizes.
        opacity_logits: Opacity before the sigmoid.
        sh: Spherical harmonics, K = (sh_degree + 1)^2.
        sh_degree: 0 to 3.
    """

    rig: Rig
    params: RigParams
    binding: Int[Tensor, "N"]
    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    log_scales: Float[Tensor, "N 3"]
    opacity_logits: Float[Tensor, "N"]
    sh: Float[Tensor, "N K 3"]
    sh_degree: int

    def __len__(self) -> int:
        return self.binding.shape[0]

    def parameters(self) -> dict[str, Tensor]:
        """The tensors that fitting changes, by name."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def to(self, device: torch.device | str) -> RiggedAvatar:
        """A copy with every tensor on `device`."""
        moved: dict[str, Any] = {name: x.to(device) for name, x in self.parameters().items()}
        return replace(self, rig=self.rig.to(device), params=self.params.to(device), binding=self.binding.to(device), **moved)


@dataclass(frozen=True)
class Render:
    """`image` is composited over the background; `meta` is the rasterizer's."""

    image: Float[Tensor, "C H W 3"]
    alpha: Float[Tensor, "C H W"]
    meta: dict[str, Any]


def rgb_to_sh(rgb: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """The degree-0 coefficient that shows as `rgb`."""
    return (rgb - 0.5) / SH_C0


def init_avatar(
    rig: Rig,
    params: RigParams,
    colors: Float[Tensor, "F 3"] | None = None,
    *,
    opacity: float = 0.1,
    log_scales: Float[Tensor, "F 3"] | None = None,
    sh_degree: int = 0,
) -> RiggedAvatar:
    """One Gaussian a face: at the centroid, unrotated, as large as the triangle unless `log_scales` says otherwise.

    Args:
        rig: The mesh.
        params: Rig parameters over time, kept with the avatar.
        colors: RGB in 0..1 a face (`gafcore.avatars.appearance` finds them); grey where absent.
        opacity: In 0..1.
        log_scales: Local log-scales a face.
        sh_degree: Degree of the colours; all but the first coefficient start at zero.

    Raises:
        ValueError: A shape, the degree or an opacity is out of range.
    """
    faces = rig.faces.shape[0]
    if not 0 <= sh_degree <= 3:
        raise ValueError(f"sh_degree must be 0 to 3, got {sh_degree}")
    if colors is not None and tuple(colors.shape) != (faces, 3):
        raise ValueError(f"colors must be [{faces}, 3], one a face, got {tuple(colors.shape)}")
    if not 0 < opacity < 1:
        raise ValueError(f"opacity must lie strictly between 0 and 1, got {opacity}")
    template = rig.template.new_zeros(faces, 3)
    sh = template.new_zeros(faces, (sh_degree + 1) ** 2, 3)
    if colors is not None:
        sh[:, 0] = rgb_to_sh(colors)
    quats = template.new_zeros(faces, 4)
    quats[:, 0] = 1
    return RiggedAvatar(
        rig=rig,
        params=params,
        binding=torch.arange(faces, device=template.device),
        means=template,
        quats=quats,
        log_scales=template.clone() if log_scales is None else log_scales.clone(),
        opacity_logits=template.new_full((faces,), math.log(opacity / (1 - opacity))),
        sh=sh,
        sh_degree=sh_degree,
    )


def pose(avatar: RiggedAvatar, params: RigParams) -> Gaussians:
    """The avatar's Gaussians in world space at B timesteps, differentiable in the avatar and in `params`."""
    return pose_on(avatar, avatar.rig.vertices(params))


def pose_on(avatar: RiggedAvatar, vertices: Float[Tensor, "B V 3"]) -> Gaussians:
    """The avatar's Gaussians in world space on a mesh that is already posed: equations 1-3 of GAF."""
    means, quats, scales = bind_triangles(vertices, avatar.rig.faces, avatar.binding, avatar.means, avatar.quats, avatar.log_scales)
    opacities = torch.sigmoid(avatar.opacity_logits)
    return Gaussians(means, quats, scales, opacities, avatar.sh, avatar.sh_degree)


def render(
    avatar: RiggedAvatar,
    cameras: Sequence[Camera],
    params: RigParams,
    background: Float[Tensor, "3"] | Float[Tensor, "C 3"] | None = None,
    **options: Any,
) -> Render:
    """Pictures of the avatar.

    Args:
        avatar: What to draw.
        cameras: C cameras of one image size.
        params: One timestep for all cameras, or one a camera.
        background: RGB, one for all or one a camera; white where absent.
        **options: Passed to `gafcore.rasterization`, e.g. `absgrad=True`.

    Raises:
        ValueError: Neither one timestep nor one a camera; cameras of several sizes.
    """
    if len(params) not in (1, len(cameras)):
        raise ValueError(f"params must hold 1 timestep or one a camera ({len(cameras)}), got {len(params)}")
    return draw(pose(avatar, params), cameras, background, **options)


def draw(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Float[Tensor, "3"] | Float[Tensor, "C 3"] | None = None,
    **options: Any,
) -> Render:
    """Rasterize posed Gaussians: one set for all cameras (B = 1), or one a camera (B = C).

    Cameras and background may be on another device than the Gaussians.
    """
    device = gaussians.means.device
    viewmats, intrinsics = (x.to(device) for x in stack(cameras))
    back = gaussians.means.new_ones(3) if background is None else background.to(device)
    means, quats, scales = gaussians.means, gaussians.quats, gaussians.scales
    if means.dim() == 3 and means.shape[0] == 1:
        means, quats, scales = means.squeeze(0), quats.squeeze(0), scales.squeeze(0)  # [0] copies the gradients
    opacities, colors = gaussians.opacities, gaussians.colors
    if means.dim() == 3:  # per-camera sets: what does not move with the pose is repeated without a copy
        opacities = opacities.expand(len(cameras), *opacities.shape[-1:])
        colors = colors.expand(len(cameras), *colors.shape[-3:])
    image, alpha, meta = rasterization(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        intrinsics,
        cameras[0].width,
        cameras[0].height,
        sh_degree=gaussians.sh_degree,
        backgrounds=back.expand(len(cameras), 3),
        **options,
    )
    return Render(image, alpha[..., 0], meta)


def triangle_sizes(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F"]:
    """The unit of each triangle's frame, metres: half the sum of its first edge's length and its height over that edge."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    edge = (b - a).norm(dim=-1)
    doubled_area = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    return (edge + doubled_area / edge.clamp(min=1e-12)) / 2
