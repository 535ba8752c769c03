"""Rows of every op but the rasterizer, called from Python and, where it says so, replayed as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.facts import peer
from benchmarks.gpu.measure import Row, backward, called_and_replayed, failed, row
from gafcore import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterize_mesh
from gafcore.cameras import from_angles
from tests.cases.bindings import BindingCase
from tests.cases.images import ImageCase
from tests.cases.meshes import sphere
from tests.cases.skinning import HEAD, SkinningCase

DEVICE = "cuda"
SIZES = {"512x512": (512, 512), "802x550": (802, 550), "1024x1024": (1024, 1024)}  # height, width
COUNTS = (10_000, 50_000, 100_000, 300_000)
BATCHES = (1, 4, 16)
N_FACES = 10_000
MESH_SIZES, MESH_CAMERAS = (512, 1024), (1, 16)
SKINNED = ((1, 5_000), (1, 25_000), (4, 5_000), (16, 5_000))  # poses, vertices
CHANNELS = (3, 32)  # of attributes that are interpolated


def moved(*tensors: Tensor) -> list[Tensor]:
    return [x.to(DEVICE) for x in tensors]


def binding_rows() -> list[Row]:
    """Every count alone, batches of poses where there are few Gaussians and where there are many."""
    rows = []
    for n, batch in [*((n, 1) for n in COUNTS), *((n, b) for n in (COUNTS[0], COUNTS[2]) for b in BATCHES[1:])]:
        vertices, faces, binding, *local = moved(*BindingCase("", batch, N_FACES, n).inputs(torch.float32))
        facts = dict(gaussians=n, batch=batch)
        with torch.no_grad():
            call = lambda: bind_triangles(vertices, faces, binding, *local)  # noqa: B023, E731
            rows += called_and_replayed("bind_triangles", call, n_bytes=n * 4 * (2 + 10 + 10 * batch), **facts)
        leaves = [x.requires_grad_() for x in (vertices, *local)]
        step = backward(lambda: sum(x.sum() for x in bind_triangles(vertices, faces, binding, *local)), leaves)  # noqa: B023
        rows += called_and_replayed("bind_triangles forward+backward", step, **facts)
    return rows


def skinning_rows() -> list[Row]:
    rows = []
    for batch, n in SKINNED:
        vertices, weights, angles, joints, translations = moved(*SkinningCase("", batch, n, HEAD, angle=0.2).inputs(torch.float32))
        facts = dict(vertices=n, batch=batch)

        def skinned() -> Tensor:
            return linear_blend_skinning(vertices, weights, angles, joints, HEAD, translations)  # noqa: B023

        with torch.no_grad():
            n_bytes = 4 * n * (6 * batch + len(HEAD))
            rows += called_and_replayed("linear_blend_skinning", skinned, n_bytes=n_bytes, **facts)
        leaves = [x.requires_grad_() for x in (vertices, angles, joints, translations)]
        rows += called_and_replayed("linear_blend_skinning forward+backward", backward(lambda: skinned().sum(), leaves), **facts)
    return rows


def images(size: str, batch: int) -> tuple[Tensor, Tensor]:
    image, target, _ = ImageCase("", (*SIZES[size], 3)).inputs(torch.float32)
    x, y = (z.to(DEVICE).expand(batch, -1, -1, -1).contiguous() for z in (image, target))
    return x.requires_grad_(), y


def loss_rows() -> list[Row]:
    rows = []
    for size in SIZES:
        for batch in BATCHES:
            x, y = images(size, batch)
            facts = dict(size=size, batch=batch)
            with torch.no_grad():
                call = lambda: photometric_loss(x, y)  # noqa: B023, E731
                rows += called_and_replayed("photometric_loss", call, n_bytes=2 * 4 * x.numel(), **facts)

            def loss() -> Tensor:
                l1, ssim = photometric_loss(x, y)  # noqa: B023
                return 0.8 * l1 + 0.2 * (1 - ssim)

            # Forward reads two images and writes a gradient; backward reads three and writes one.
            step = backward(loss, [x])
            rows += called_and_replayed("photometric_loss forward+backward", step, n_bytes=7 * 4 * x.numel(), **facts)
    return rows


def fused_ssim_rows() -> list[Row]:
    """fused-ssim beside an L1 in torch; where it cannot be captured, its replayed row says so."""
    if (module := peer("fused_ssim")) is None:
        return []
    rows = []
    for size in SIZES:
        for batch in BATCHES:
            a, b = (z.detach().permute(0, 3, 1, 2).contiguous() for z in images(size, batch))
            a.requires_grad_()
            loss = lambda: 0.8 * (a - b).abs().mean() + 0.2 * (1 - module.fused_ssim(a, b))  # noqa: B023, E731
            rows += called_and_replayed("peer fused_ssim + L1 forward+backward", backward(loss, [a]), size=size, batch=batch)
    return rows


def views(size: int, cameras: int) -> tuple[Tensor, Tensor]:
    made = [from_angles(0.2 * i, 0.2, 1.0, focal_px=4 * size, width=size, height=size) for i in range(cameras)]
    return torch.stack([c.viewmat for c in made]).to(DEVICE), torch.stack([c.K for c in made]).to(DEVICE)


def head_mesh() -> tuple[Tensor, Tensor]:
    vertices, faces = sphere(100)  # 19,800 triangles, as a head
    return vertices.float().to(DEVICE).requires_grad_(), faces.to(DEVICE)


def mesh_rows() -> list[Row]:
    rows = []
    vertices, faces = head_mesh()
    for size in MESH_SIZES:
        for cameras in MESH_CAMERAS:
            viewmats, Ks = views(size, cameras)
            facts = dict(size=size, cameras=cameras)

            def raster() -> tuple[Tensor, ...]:
                return rasterize_mesh(vertices, faces, viewmats, Ks, size, size)  # noqa: B023

            def drawn() -> Tensor:
                found = raster()
                return interpolate(vertices, faces, found.triangle_ids, found.barycentrics)

            with torch.no_grad():
                rows += called_and_replayed("rasterize_mesh", raster, **facts)
                rows += called_and_replayed("rasterize_mesh + interpolate", drawn, **facts)
            step = backward(lambda: drawn().square().sum(), [vertices])
            rows += called_and_replayed("rasterize_mesh + interpolate forward+backward", step, **facts)
            rows += nvdiffrast_rows(vertices, faces, viewmats, Ks, size, facts)
    return rows


def nvdiffrast_rows(vertices: Tensor, faces: Tensor, viewmats: Tensor, Ks: Tensor, size: int, facts: dict[str, Any]) -> list[Row]:
    """nvdiffrast's CUDA rasterizer on the same cameras, from vertices in clip space, which its user computes."""
    if peer("nvdiffrast") is None:
        return []
    try:
        import nvdiffrast.torch as dr

        context, triangles = dr.RasterizeCudaContext(), faces.int()
    except Exception as error:  # it compiles here
        return [failed("peer nvdiffrast rasterize + interpolate", error, **facts)]
    z = torch.tensor([[0, 0, 1.02, -0.04]], device=DEVICE)  # near 0.02, far 2

    def image() -> Tensor:
        camera = vertices @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
        xy = (camera @ Ks.mT)[..., :2] * (2 / size) - camera[..., 2:]
        clip = torch.cat([xy, camera[..., 2:] * z[:, 2:3] + z[:, 3:], camera[..., 2:]], -1).contiguous()
        raster, _ = dr.rasterize(context, clip, triangles, (size, size))
        return dr.interpolate(vertices[None], raster, triangles)[0].square().sum()

    with torch.no_grad():
        plain = row("peer nvdiffrast rasterize + interpolate", image, **facts)
    return [plain, row("peer nvdiffrast rasterize + interpolate forward+backward", backward(image, [vertices]), **facts)]


def interpolate_rows() -> list[Row]:
    """By itself, over what `rasterize_mesh` drew: attributes and barycentrics have gradients."""
    rows = []
    vertices, faces = head_mesh()
    for size in MESH_SIZES:
        with torch.no_grad():
            raster = rasterize_mesh(vertices, faces, *views(size, 1), size, size)
        barycentrics = raster.barycentrics.requires_grad_()
        for channels in CHANNELS:
            attributes = torch.randn(len(vertices), channels, device=DEVICE).requires_grad_()
            facts = dict(size=size, channels=channels)

            def picture() -> Tensor:
                return interpolate(attributes, faces, raster.triangle_ids, barycentrics)  # noqa: B023

            with torch.no_grad():
                n_bytes = 4 * size * size * (4 + channels)  # an id, three barycentrics in; attributes out
                rows += called_and_replayed("interpolate", picture, n_bytes=n_bytes, **facts)
            step = backward(lambda: picture().sum(), [attributes, barycentrics])
            rows += called_and_replayed("interpolate forward+backward", step, **facts)
    return rows


def adam_rows() -> list[Row]:
    from gafcore.fitting.optim import NamedAdam  # the fit's package needs libraries that no other op does

    rows = []
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "opacity_logits": (), "sh_dc": (1, 3), "sh_rest": (15, 3)}
    for n in COUNTS:
        tensors = {name: torch.randn(n, *shape, device=DEVICE) for name, shape in shapes.items()}
        gradients = {name: torch.randn_like(x) for name, x in tensors.items()}
        adam = NamedAdam(tensors, dict.fromkeys(tensors, 1e-3), 1e-15)

        def ours() -> None:
            for name, x in adam.tensors.items():  # noqa: B023
                x.grad = gradients[name]  # noqa: B023
            adam.step()  # noqa: B023

        n_bytes = 7 * 4 * sum(x.numel() for x in tensors.values())
        rows += called_and_replayed("adam", ours, n_bytes=n_bytes, gaussians=n)
        peers = torch.optim.Adam(list(tensors.values()), fused=DEVICE == "cuda", capturable=DEVICE == "cuda")
        for name, x in tensors.items():
            x.grad = gradients[name]
        rows += called_and_replayed("peer torch.optim.Adam fused", peers.step, gaussians=n)
    return rows


# Peers last: they may compile, or fail in ways of their own.
GROUPS: list[Callable[[], list[Row]]] = [binding_rows, loss_rows, adam_rows, skinning_rows, interpolate_rows, mesh_rows, fused_ssim_rows]
