"""The suites of benchmarks/gpu.sh: `python -m benchmarks.gpu.suites ops|rasterize|scale --out FILE.json`."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.animation import animation_rows
from benchmarks.gpu.measure import gpu_facts, replayed, row
from gafcore import bind_triangles, interpolate, photometric_loss, rasterization, rasterize_mesh
from gafcore.cameras import from_angles
from gafcore.cli.doctor import machine
from gafcore.files import write_json
from gafcore.fitting.optim import NamedAdam
from tests.cases.bindings import BindingCase
from tests.cases.images import ImageCase
from tests.cases.meshes import sphere
from tests.cases.rasterization import NAMES, head_ball

SIZES = {"512x512": (512, 512), "802x550": (802, 550), "1024x1024": (1024, 1024)}  # height, width
COUNTS = (10_000, 50_000, 100_000, 300_000)
Rows = list[dict[str, object]]


def cuda(*tensors: Tensor) -> list[Tensor]:
    return [x.cuda() for x in tensors]


def backward(call: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    def step() -> None:
        for x in leaves:
            x.grad = None
        call().backward()

    return step


# ---- ops


def binding_rows() -> Rows:
    rows = []
    for n in COUNTS:
        vertices, faces, binding, *local = cuda(*BindingCase("", 1, 10_000, n).inputs(torch.float32))
        with torch.no_grad():
            call = lambda: bind_triangles(vertices, faces, binding, *local)  # noqa: B023, E731
            rows.append(row("bind_triangles", call, n_bytes=n * 4 * (8 + 10 + 10), gaussians=n))
        leaves = [x.requires_grad_() for x in (vertices, *local)]
        step = backward(lambda: sum(x.sum() for x in bind_triangles(vertices, faces, binding, *local)), leaves)  # noqa: B023
        rows.append(row("bind_triangles forward+backward", step, gaussians=n))
    return rows


def loss_rows() -> Rows:
    rows = []
    fused = importlib.util.find_spec("fused_ssim") is not None
    for size, (height, width) in SIZES.items():
        for batch in (1, 4, 16):
            image, target, _ = ImageCase("", (height, width, 3)).inputs(torch.float32)
            x = image.cuda().expand(batch, -1, -1, -1).contiguous().requires_grad_()
            y = target.cuda().expand(batch, -1, -1, -1).contiguous()
            numbers = x.numel()
            facts = dict(size=size, batch=batch)
            with torch.no_grad():
                rows.append(row("photometric_loss", lambda: photometric_loss(x, y), n_bytes=2 * 4 * numbers, **facts))  # noqa: B023

            def ours() -> Tensor:
                l1, ssim = photometric_loss(x, y)  # noqa: B023
                return 0.8 * l1 + 0.2 * (1 - ssim)

            # Forward reads two images and writes a gradient; backward reads three and writes one.
            rows.append(row("photometric_loss forward+backward", backward(ours, [x]), n_bytes=7 * 4 * numbers, **facts))
            if fused:
                from fused_ssim import fused_ssim

                a, b = x.detach().permute(0, 3, 1, 2).contiguous().requires_grad_(), y.permute(0, 3, 1, 2).contiguous()
                peer = lambda: 0.8 * (a - b).abs().mean() + 0.2 * (1 - fused_ssim(a, b))  # noqa: B023, E731
                rows.append(row("peer fused_ssim + L1 forward+backward", backward(peer, [a]), **facts))
    return rows


def mesh_rows() -> Rows:
    rows = []
    vertices, faces = sphere(100)  # 19,800 triangles, as a head
    vertices, faces = vertices.float().cuda().requires_grad_(), faces.cuda()
    for size in (512, 1024):
        for cameras in (1, 16):
            views = [from_angles(0.2 * i, 0.2, 1.0, focal_px=4 * size, width=size, height=size) for i in range(cameras)]
            viewmats, Ks = torch.stack([c.viewmat for c in views]).cuda(), torch.stack([c.K for c in views]).cuda()
            facts = dict(size=size, cameras=cameras)
            with torch.no_grad():
                rows.append(row("rasterize_mesh", lambda: rasterize_mesh(vertices, faces, viewmats, Ks, size, size), **facts))  # noqa: B023

                def drawn() -> Tensor:
                    raster = rasterize_mesh(vertices, faces, viewmats, Ks, size, size)  # noqa: B023
                    return interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics)

                rows.append(row("rasterize_mesh + interpolate", drawn, **facts))

            def image() -> Tensor:
                raster = rasterize_mesh(vertices, faces, viewmats, Ks, size, size)  # noqa: B023
                return interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics).square().sum()

            rows.append(row("rasterize_mesh + interpolate forward+backward", backward(image, [vertices]), **facts))
            rows += nvdiffrast_rows(vertices, faces, viewmats, Ks, size, facts)
    return rows


def nvdiffrast_rows(vertices: Tensor, faces: Tensor, viewmats: Tensor, Ks: Tensor, size: int, facts: dict[str, Any]) -> Rows:
    """nvdiffrast's CUDA rasterizer on the same cameras, from vertices in clip space, which its user computes."""
    if importlib.util.find_spec("nvdiffrast") is None:
        return []
    import nvdiffrast.torch as dr

    context, triangles = dr.RasterizeCudaContext(), faces.int()
    z = torch.tensor([[0, 0, 1.02, -0.04]], device="cuda")  # near 0.02, far 2

    def image() -> Tensor:
        camera = vertices @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
        xy = (camera @ Ks.mT)[..., :2] * (2 / size) - camera[..., 2:]
        clip = torch.cat([xy, camera[..., 2:] * z[:, 2:3] + z[:, 3:], camera[..., 2:]], -1).contiguous()
        raster, _ = dr.rasterize(context, clip, triangles, (size, size))
        return dr.interpolate(vertices[None], raster, triangles)[0].square().sum()

    with torch.no_grad():
        plain = row("peer nvdiffrast rasterize + interpolate", image, **facts)
    return [plain, row("peer nvdiffrast rasterize + interpolate forward+backward", backward(image, [vertices]), **facts)]


def adam_rows() -> Rows:
    rows = []
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "opacity_logits": (), "sh_dc": (1, 3), "sh_rest": (15, 3)}
    for n in COUNTS:
        tensors = {name: torch.randn(n, *shape, device="cuda") for name, shape in shapes.items()}
        numbers = sum(x.numel() for x in tensors.values())
        gradients = {name: torch.randn_like(x) for name, x in tensors.items()}
        adam = NamedAdam(tensors, dict.fromkeys(tensors, 1e-3), 1e-15)

        def ours() -> None:
            for name, x in adam.tensors.items():  # noqa: B023
                x.grad = gradients[name]  # noqa: B023
            adam.step()  # noqa: B023

        rows.append(row("adam", ours, n_bytes=7 * 4 * numbers, gaussians=n))
        peer = torch.optim.Adam(list(tensors.values()), fused=True)
        for name, x in tensors.items():
            x.grad = gradients[name]
        rows.append(row("peer torch.optim.Adam fused", peer.step, gaussians=n))
    return rows


# ---- rasterizer


def _views(n: int, size: str, degree: int, batch: int) -> tuple[dict[str, Tensor], Tensor, int, int, Tensor]:
    scene, _ = head_ball(n, size, degree)
    tensors = {k: v.cuda() for k, v in scene.tensors(torch.float32).items()}
    tensors["viewmats"] = tensors["viewmats"].repeat(batch, 1, 1)
    tensors["viewmats"][:, 0, 3] += 0.002 * torch.arange(batch, device="cuda")
    tensors["backgrounds"] = tensors["backgrounds"].repeat(batch, 1)
    return (
        tensors,
        scene.Ks.float().cuda().repeat(batch, 1, 1),
        scene.width,
        scene.height,
        torch.randn(batch, scene.height, scene.width, 3, device="cuda"),
    )


def _rasterizers() -> dict[str, Callable]:
    found: dict[str, Callable] = {"rasterization": rasterization}
    if importlib.util.find_spec("gsplat") is not None:
        from gsplat import rasterization as gsplat

        found |= {
            # Packed, 1.5.3 takes no backgrounds for cameras without a batch dimension (an assertion of its own): less work for it.
            "peer gsplat packed": lambda *a, backgrounds, **k: gsplat(*a, **k, packed=True),  # noqa: ARG005
            "peer gsplat dense": lambda *a, **k: gsplat(*a, **k, packed=False),
        }
    return found


def rasterizer_rows(size: str, degree: int, n: int, batch: int) -> Rows:
    rows = []
    tensors, Ks, width, height, upstream = _views(n, size, degree, batch)
    facts = dict(gaussians=n, size=size, sh=degree, batch=batch)
    for name, draw in _rasterizers().items():

        def image(draw=draw) -> Tensor:
            args = [tensors[k] for k in NAMES]
            return draw(*args, Ks, width, height, sh_degree=degree, backgrounds=tensors["backgrounds"])[0]

        with torch.no_grad():
            rows += eager_and_replayed(f"{name} forward", image, name == "rasterization", facts)
        leaves = [tensors[k].requires_grad_() for k in NAMES[:5]]
        step = backward(lambda: (image() * upstream).sum(), leaves)
        rows += eager_and_replayed(f"{name} forward+backward", step, name == "rasterization", facts)
        for x in leaves:
            x.requires_grad_(False)
    return rows


def rasterizer_grid() -> list[Callable[[], Rows]]:
    """Single cameras first, for a run that is cut off; then batches, where Gaussians are few and where they are many."""
    kinds = [(size, degree, n, 1) for size, degree in itertools.product(SIZES, (0, 3)) for n in COUNTS]
    kinds += [
        (size, degree, n, batch) for size in ("512x512", "802x550") for degree in (0, 3) for n in (10_000, 100_000) for batch in (4, 16)
    ]
    return [partial(rasterizer_rows, *kind) for kind in kinds]


def eager_and_replayed(name: str, call: Callable[[], Any], capture: bool, facts: dict[str, Any]) -> Rows:
    """A row as it is called from Python, and one of its CUDA graph; peers ask the device for sizes, so they have no graph."""
    rows = [row(name, call, **facts)]
    if capture:
        try:
            rows.append(row(f"{name}, replayed", replayed(call), **facts))
        except RuntimeError as error:
            rows.append({"name": f"{name}, replayed", **facts, "error": str(error).splitlines()[0]})
    return rows


# ---- whole frames and steps


def frame_and_step(n: int) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """A frame of `n` Gaussians on 10,000 triangles at 802x550, and a training step of it."""
    vertices, faces, binding, *local = cuda(*BindingCase("", 1, 10_000, n).inputs(torch.float32))
    vertices, scales = vertices * 0.5, torch.full_like(local[2], -3.0)
    tensors, Ks, width, height, _ = _views(n, "802x550", 0, 1)

    def drawn(means: Tensor, quats: Tensor, log_scales: Tensor, opacities: Tensor, colors: Tensor) -> Tensor:
        world_means, world_quats, world_scales = bind_triangles(vertices, faces, binding, means, quats, log_scales)
        args = (world_means.squeeze(0), world_quats.squeeze(0), world_scales.squeeze(0), opacities, colors, tensors["viewmats"])
        return rasterization(*args, Ks, width, height, sh_degree=0, backgrounds=tensors["backgrounds"])[0]

    def frame() -> Tensor:
        return drawn(local[0], local[1], scales, tensors["opacities"], tensors["colors"])

    target = frame().detach() * 0.9
    names = dict(means=local[0], quats=local[1], log_scales=scales, opacities=tensors["opacities"].logit(), colors=tensors["colors"])
    adam = NamedAdam({k: v.clone() for k, v in names.items()}, dict.fromkeys(names, 1e-4), 1e-15)

    def step() -> None:
        t = adam.tensors
        l1, ssim = photometric_loss(drawn(t["means"], t["quats"], t["log_scales"], t["opacities"].sigmoid(), t["colors"]), target)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        adam.step()

    return frame, step


def scale_rows() -> Rows:
    rows = []
    for n in (50_000, 100_000):
        frame, step = frame_and_step(n)
        facts = dict(gaussians=n, size="802x550")
        with torch.no_grad():
            rows += eager_and_replayed("frame: bind, draw", frame, True, facts)
        rows += eager_and_replayed("training step: bind, draw, loss, backward, adam", step, True, facts)
    return rows


SUITES: dict[str, list[Callable[[], Rows]]] = {
    "ops": [binding_rows, loss_rows, mesh_rows, adam_rows],
    "rasterize": rasterizer_grid(),
    "scale": [scale_rows, animation_rows],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: torch sees no GPU; nothing was measured")
    report = {"suite": args.suite, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    report |= {"machine": machine(), "gpu": gpu_facts(), "results": []}
    for rows in SUITES[args.suite]:
        report["results"] += rows()
        write_json(args.out, report)  # after each, so that a run that is cut off leaves what it has
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
