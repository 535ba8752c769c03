"""Gaussian splatting in plain torch: every pixel against every splat, sorted by depth. Differentiable, slow, no tiles."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(quats: Tensor) -> Tensor:
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    k = torch.zeros(*w.shape, 3, 3, dtype=quats.dtype)
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 0], k[..., 1, 2], k[..., 2, 0], k[..., 2, 1] = -z, y, z, -x, -y, x
    return torch.eye(3, dtype=quats.dtype) + 2 * w[..., None, None] * k + 2 * k @ k  # Rodrigues, with unit quaternions


def sh_bases(degree: int, d: Tensor) -> Tensor:
    """Real spherical harmonics [.., (degree + 1)^2] as polynomials on the sphere, signs of 3D Gaussian splatting."""
    x, y, z = d.unbind(-1)
    pi = torch.pi
    out = [torch.full_like(x, (1 / (4 * pi)) ** 0.5)]
    if degree >= 1:
        out += [(3 / (4 * pi)) ** 0.5 * s for s in (-y, z, -x)]
    if degree >= 2:
        n = (15 / (4 * pi)) ** 0.5
        out += [n * x * y, -n * y * z, (5 / (16 * pi)) ** 0.5 * (3 * z**2 - 1), -n * x * z, n / 2 * (x**2 - y**2)]
    if degree >= 3:
        a, b = (35 / (32 * pi)) ** 0.5, (21 / (32 * pi)) ** 0.5
        out += [-a * y * (3 * x**2 - y**2), (105 / (4 * pi)) ** 0.5 * x * y * z, -b * y * (5 * z**2 - 1)]
        out += [(7 / (16 * pi)) ** 0.5 * z * (5 * z**2 - 3), -b * x * (5 * z**2 - 1), (105 / (16 * pi)) ** 0.5 * z * (x**2 - y**2)]
        out += [-a * x * (x**2 - 3 * y**2)]
    return torch.stack(out, -1)


def project(means, quats, scales, viewmat, K, width, height, eps2d):
    """Screen means [N, 2], covariances without and with blur [N, 2, 2], depths [N] of one camera."""
    world_to_cam, t = viewmat[:3, :3], viewmat[:3, 3]
    p = means @ world_to_cam.T + t
    x, y, z = p.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    tx = z * torch.clamp(x / z, float(-cx / fx - margin_x), float((width - cx) / fx + margin_x))
    ty = z * torch.clamp(y / z, float(-cy / fy - margin_y), float((height - cy) / fy + margin_y))
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], -1).reshape(-1, 2, 3)
    turn = rotation(quats)
    covariance = turn @ torch.diag_embed(scales**2) @ turn.transpose(-1, -2)
    m = jacobian @ world_to_cam
    sharp = m @ covariance @ m.transpose(-1, -2)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), sharp, sharp + eps2d * torch.eye(2, dtype=sharp.dtype), z


def rasterization(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, near_plane=0.01, far_plane=1e10, eps2d=0.3, sh_degree=None,
    backgrounds=None, render_mode="RGB", rasterize_mode="classic",
):  # fmt: skip
    """Image [C, H, W, X] and alpha [C, H, W, 1]. Alpha below 1/255 counts as nothing and is at most 0.999; light is never cut off."""
    images, alphas = [], []
    for c in range(len(viewmats)):
        own = [x[c] if x.dim() > d else x for x, d in ((means, 2), (quats, 2), (scales, 2), (opacities, 1))]
        uv, sharp, cov, z = project(*own[:3], viewmats[c], Ks[c], width, height, eps2d)
        opacity = own[3]
        if rasterize_mode == "antialiased":
            opacity = opacity * torch.sqrt(torch.clamp(torch.linalg.det(sharp) / torch.linalg.det(cov), min=0))
        channels = []
        if "RGB" in render_mode:
            color = colors[c] if colors.dim() > (2 if sh_degree is None else 3) else colors
            if sh_degree is not None:
                position = -torch.linalg.inv(viewmats[c, :3, :3]) @ viewmats[c, :3, 3]
                bases = sh_bases(sh_degree, torch.nn.functional.normalize(own[0] - position, dim=-1))
                color = torch.clamp((bases[..., None] * color[:, : bases.shape[-1]]).sum(-2) + 0.5, min=0)
            channels.append(color)
        if "D" in render_mode:
            channels.append(z[:, None])
        color = torch.cat(channels, -1)
        keep = (z > near_plane) & (z < far_plane)
        order = torch.argsort(z.detach()[keep], stable=True)
        uv, cov, opacity, color = (x[keep][order] for x in (uv, cov, opacity, color))
        ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        d = torch.stack([xs, ys], -1).reshape(-1, 1, 2).to(uv) - uv
        inverse = torch.linalg.inv(cov)
        sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", d, inverse, d)
        alpha = torch.clamp(opacity * torch.exp(-sigma), max=0.999)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha], 1), 1)
        image = (alpha * light[:, :-1]) @ color
        if backgrounds is not None and "RGB" in render_mode:
            n = backgrounds.shape[-1]
            image = torch.cat([image[:, :n] + light[:, -1:] * backgrounds[c], image[:, n:]], -1)
        alpha = 1 - light[:, -1:]
        if "ED" in render_mode:
            image = torch.cat([image[:, :-1], image[:, -1:] / alpha.clamp(min=1e-10)], -1)
        images.append(image.reshape(height, width, -1))
        alphas.append(alpha.reshape(height, width, 1))
    return torch.stack(images), torch.stack(alphas)
