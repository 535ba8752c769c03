"""One pass over the small scenes of the tests on the GPU, forward and backward: what compute-sanitizer watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.measure import replayed
from gafcore import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh
from gafcore.ops import pair_room
from tests.cases.bindings import binding_cases
from tests.cases.images import image_cases
from tests.cases.meshes import mesh_cases
from tests.cases.rasterization import Scene, column, faint, scene, scenes
from tests.cases.skinning import skinning_cases

DEVICE = "cuda"
COLUMNS = (700, 3000, 9000)  # lists for small blocks, for large ones, and for more than those hold


def moved(inputs: Iterable[object]) -> list:
    inputs = [x.to(DEVICE) if isinstance(x, Tensor) else x for x in inputs]
    return [x.requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]


def meshes() -> None:
    for case in binding_cases():
        sum(x.sum() for x in bind_triangles(*moved(case.inputs(torch.float32)))).backward()
    for case in skinning_cases():
        vertices, weights, axis_angles, joints, translations = moved(case.inputs(torch.float32))
        linear_blend_skinning(vertices, weights.detach(), axis_angles, joints, case.parents, translations).sum().backward()
    for case in mesh_cases():
        vertices, faces, viewmats, Ks, width, height = moved(case.inputs(torch.float32))
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, width, height, near_plane=case.near_plane)
        image = interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics)
        (image.sum() + raster.depth.sum()).backward()


def losses() -> None:
    for case in image_cases():
        image, target, mask = case.inputs(torch.float32)
        l1, ssim = photometric_loss(image.to(DEVICE).requires_grad_(), target.to(DEVICE), None if mask is None else mask.to(DEVICE))
        (l1 - ssim).backward()


def draw(case: Scene, *, grad: bool = True, half: bool = False, **options: object) -> None:
    tensors = {k: v.to(DEVICE).detach().requires_grad_(grad) for k, v in case.tensors(torch.float32).items()}
    if half:
        tensors["colors"] = tensors["colors"].half()
    options = dict(case.options, **options, **({"backgrounds": tensors["backgrounds"]} if "backgrounds" in tensors else {}))
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
    render, alphas, _ = rasterization(*(tensors[k] for k in names), case.Ks.float().to(DEVICE), case.width, case.height, **options)
    if grad:
        (render.sum() + alphas.sum()).backward()


def frames() -> None:
    for case in scenes():
        draw(case)
        draw(case, grad=False)  # other kernels' arguments: nothing is kept


def options_of_frames() -> None:
    """Atomic sums, absolute gradients, half-precision harmonics."""
    for case in (scene("atomic", sh_degree=1, n=300), scene("huge_splats", scale=1.0, n=20, width=130, height=99, opacity=0.3)):
        draw(case, atomic_gradients=True)
        draw(case, absgrad=True)
    with torch.no_grad():
        draw(scene("half", sh_degree=3, n=100), grad=False, half=True)


def columns() -> None:
    for n, depths in product(COLUMNS, ("ulps", "spread")):  # with too many keys in a bin, and without
        made = column(n, 3, depths).to(DEVICE)
        for v in made.tensors.values():
            v.requires_grad_()
        made.draw(rasterization)[0].sum().backward()


def cut_lists() -> None:
    """Lists that other blocks have pieces of. With six channels backward makes the states again, in the memory of its sums."""
    for channels in (3, 6):
        cut = faint(scene(f"cut_{channels}_channels", n=1400, scale=1.0, cameras=1, width=18, height=7, channels=channels))
        draw(cut)
        draw(cut, grad=False)


def without_room() -> None:
    """Frames with more pairs than they have room for, which never find out."""
    pair_room.forget()
    with (
        patch.object(pair_room.PairRoom, "fit", lambda self, n_pairs: False),  # noqa: ARG005
        patch.object(pair_room, "_FIRST_GUESS", 0),
        patch.object(pair_room, "STEP", 16),
    ):
        draw(scene("no_room", n=300, sh_degree=1))
        draw(scene("no_room", n=300, sh_degree=1), grad=False)
        draw(scene("no_room", n=300, channels=5))
    pair_room.forget()


def adam() -> None:
    from gafcore.fitting.optim import NamedAdam  # the fit's package needs libraries that no other op does

    for sizes in ((1,), (5, 3), (1000, 3), (0, 3), (333,)):
        tensors = {f"{k}_{'x'.join(map(str, sizes))}": torch.randn(sizes, device=DEVICE) for k in ("a", "b")}
        optimizer = NamedAdam(tensors, dict.fromkeys(tensors, 1e-3), 1e-15)
        for _ in range(2):
            for x in optimizer.tensors.values():
                x.grad = torch.randn_like(x)
            optimizer.step()


def graph() -> None:
    """A training step, captured and replayed."""
    case = scene("graph", cameras=1, sh_degree=1, background=False)
    tensors = {k: v.to(DEVICE) for k, v in case.tensors(torch.float32).items()}
    leaves = [tensors[k].requires_grad_() for k in ("means", "colors")]
    target, Ks = torch.rand(1, 37, 45, 3, device=DEVICE), case.Ks.float().to(DEVICE)

    def step() -> None:
        image = rasterization(*tensors.values(), Ks, case.width, case.height, sh_degree=1)[0]
        l1, ssim = photometric_loss(image, target)
        (l1 - ssim).backward()
        for x in leaves:
            x.grad = None

    replay = replayed(step)
    for _ in range(3):
        replay()


PASSES: list[Callable[[], None]] = [meshes, losses, frames, options_of_frames, columns, cut_lists, without_room, adam, graph]


def main() -> None:
    for one in PASSES:
        one()
        torch.cuda.synchronize()
        print(f"small scenes: {one.__name__} done", flush=True)


if __name__ == "__main__":
    main()
