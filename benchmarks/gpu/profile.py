"""Where a frame's and a step's device time goes, kernel by kernel:
`python -m benchmarks.gpu.profile --out FILE.json [--once] [--only NAME]`.

`--once` runs every case twice and measures nothing: for ncu, which then sees each kernel warm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_render import bare_head, with_count
from benchmarks.gpu.animation import motion
from benchmarks.gpu.measure import gpu_facts
from benchmarks.gpu.suites import _views, backward, frame_and_step
from gafcore import interpolate, photometric_loss, rasterization, rasterize_mesh
from gafcore.cameras import from_angles
from gafcore.files import write_json
from gafcore.render import CompiledRenderer
from tests.cases.images import ImageCase
from tests.cases.meshes import sphere
from tests.cases.rasterization import NAMES

_RUNS = 20


def rasterizer_case(n: int, size: str, degree: int) -> Callable[[], None]:
    tensors, Ks, width, height, upstream = _views(n, size, degree, 1)
    leaves = [tensors[k].requires_grad_() for k in NAMES[:5]]

    def image() -> Tensor:
        args = [tensors[k] for k in NAMES]
        return (rasterization(*args, Ks, width, height, sh_degree=degree, backgrounds=tensors["backgrounds"])[0] * upstream).sum()

    return backward(image, leaves)


def loss_case() -> Callable[[], None]:
    image, target, _ = ImageCase("", (1024, 1024, 3)).inputs(torch.float32)
    x = image.cuda().expand(4, -1, -1, -1).contiguous().requires_grad_()
    y = target.cuda().expand(4, -1, -1, -1).contiguous()

    def loss() -> Tensor:
        l1, ssim = photometric_loss(x, y)
        return 0.8 * l1 + 0.2 * (1 - ssim)

    return backward(loss, [x])


def mesh_case() -> Callable[[], None]:
    vertices, faces = sphere(100)
    vertices, faces = vertices.float().cuda().requires_grad_(), faces.cuda()
    views = [from_angles(0.2 * i, 0.2, 1.0, focal_px=2048, width=512, height=512) for i in range(4)]
    viewmats, Ks = torch.stack([c.viewmat for c in views]).cuda(), torch.stack([c.K for c in views]).cuda()

    def image() -> Tensor:
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, 512, 512)
        return interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics).square().sum()

    return backward(image, [vertices])


def animation_case() -> Callable[[], None]:
    avatar = with_count(bare_head(), 100_000).to("cuda")
    cameras, poses = motion(avatar, 768, 768)
    renderer = CompiledRenderer(avatar, 768, 768, graph=False)  # kernel by kernel, as the graph has them
    return lambda: renderer([cameras[7]], poses[7])


CASES: dict[str, Callable[[], Callable[[], None]]] = {
    "rasterization 100k 802x550 sh3": lambda: rasterizer_case(100_000, "802x550", 3),
    "rasterization 300k 802x550 sh3": lambda: rasterizer_case(300_000, "802x550", 3),
    "rasterization 10k 512x512 sh0": lambda: rasterizer_case(10_000, "512x512", 0),
    "training step 100k 802x550": lambda: frame_and_step(100_000)[1],
    "animated avatar 100k 768x768": animation_case,
    "photometric_loss 4x1024x1024": loss_case,
    "rasterize_mesh + interpolate 4x512x512": mesh_case,
}


def kernel_times(step: Callable[[], None]) -> list[dict[str, Any]]:
    """Device microseconds a run of each kernel, longest first."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
        for _ in range(_RUNS):
            step()
        torch.cuda.synchronize()
    rows = []
    for event in prof.key_averages():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            rows.append({"kernel": event.key[:160], "us": event.self_device_time_total / _RUNS, "launches": event.count / _RUNS})
    return sorted(rows, key=lambda r: -r["us"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    chosen = {name: make for name, make in CASES.items() if args.only in name}
    if args.once:
        for make in chosen.values():
            step = make()
            step()
            step()
        torch.cuda.synchronize()
        return
    cases = {name: kernel_times(make()) for name, make in chosen.items()}
    for name, rows in cases.items():
        print(f"\n{name}: {sum(r['us'] for r in rows):.1f} us of kernels")
        for r in rows[:24]:
            print(f"  {r['us']:8.2f} us {r['launches']:5.1f}x  {r['kernel'][:110]}")
    if args.out:
        write_json(args.out, {"gpu": gpu_facts(), "cases": cases})


if __name__ == "__main__":
    main()
