"""One pass over the small scenes of the tests on the GPU, forward and backward: what compute-sanitizer watches."""

from __future__ import annotations

import torch

from gafcore import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh
from tests.cases.bindings import binding_cases
from tests.cases.images import image_cases
from tests.cases.meshes import mesh_cases
from tests.cases.rasterization import column, scenes
from tests.cases.skinning import skinning_cases


def moved(inputs):
    inputs = [x.cuda() if isinstance(x, torch.Tensor) else x for x in inputs]
    return [x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]


def main() -> None:
    for case in binding_cases():
        sum(x.sum() for x in bind_triangles(*moved(case.inputs(torch.float32)))).backward()
    for case in skinning_cases():
        vertices, weights, axis_angles, joints, translations = moved(case.inputs(torch.float32))
        linear_blend_skinning(vertices, weights.detach(), axis_angles, joints, case.parents, translations).sum().backward()
    for case in image_cases():
        image, target, mask = case.inputs(torch.float32)
        l1, ssim = photometric_loss(image.cuda().requires_grad_(), target.cuda(), None if mask is None else mask.cuda())
        (l1 - ssim).backward()
    for case in mesh_cases():
        vertices, faces, viewmats, Ks, width, height = moved(case.inputs(torch.float32))
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, width, height, near_plane=case.near_plane)
        image = interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics)
        (image.sum() + raster.depth.sum()).backward()
    for scene in scenes():
        tensors = {k: v.cuda().detach().requires_grad_() for k, v in scene.tensors(torch.float32).items()}
        options = dict(scene.options, **({"backgrounds": tensors["backgrounds"]} if "backgrounds" in tensors else {}))
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
        render, alphas, _ = rasterization(*(tensors[k] for k in names), scene.Ks.float().cuda(), scene.width, scene.height, **options)
        (render.sum() + alphas.sum()).backward()
    for n in (700, 3000, 5000):  # lists for small blocks, for large ones, and for more than those hold
        tensors, Ks, _ = column(n, 3)
        tensors = {k: v.cuda().requires_grad_() for k, v in tensors.items()}
        rasterization(*tensors.values(), Ks.cuda(), 1, 1)[0].sum().backward()
    torch.cuda.synchronize()
    print("small scenes: done")


if __name__ == "__main__":
    main()
