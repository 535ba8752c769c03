"""What only a real GPU can show: tensors that live there, streams, devices, graphs, memory. `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from gafcore import bind_triangles, interpolate, photometric_loss, rasterize_mesh
from tests.cases.bindings import binding_cases
from tests.cases.images import image_cases
from tests.cases.meshes import mesh_cases
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]
FLOAT = torch.float32


def to(device, inputs):
    return tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in inputs)


def parity(call, inputs, wrt, rtol=1e-4, atol=1e-5):
    """Results and gradients on the GPU equal the CPU's, and are the same bits when run again."""

    def run(device):
        moved = [x.detach().to(device).requires_grad_(i in wrt) for i, x in enumerate(inputs)]
        outputs = call(*moved)
        g = torch.Generator().manual_seed(0)
        loss = sum((y * torch.randn(y.shape, generator=g).to(device)).sum() for y in outputs if y.requires_grad)
        return [y.detach().cpu() for y in (*outputs, *torch.autograd.grad(loss, [moved[i] for i in wrt]))]

    want, got, again = run("cpu"), run("cuda"), run("cuda")
    for a, b, c in zip(got, want, again, strict=True):
        assert torch.equal(a, c), "two runs give different bits"
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol * float(b.abs().max()) if b.numel() else 0)


@pytest.mark.parametrize("case", binding_cases(), ids=str)
def test_bind_triangles(case):
    vertices, faces, binding, *local = case.inputs(FLOAT)
    parity(lambda v, *x: bind_triangles(v, faces.to(v.device), binding.to(v.device), *x), (vertices, *local), (0, 1, 2, 3))


@pytest.mark.parametrize("case", image_cases(), ids=str)
def test_photometric_loss(case):
    image, target, mask = case.inputs(FLOAT)
    parity(lambda x: photometric_loss(x, target.to(x.device), None if mask is None else mask.to(x.device)), (image,), (0,))


@pytest.mark.parametrize("case", mesh_cases(), ids=str)
def test_mesh(case):
    vertices, faces, viewmats, Ks, width, height = case.inputs(FLOAT)
    attributes = torch.randn((*vertices.shape[:-1], 3), generator=torch.Generator().manual_seed(0))

    def call(vertices, viewmats, attributes):
        on = vertices.device
        raster = rasterize_mesh(vertices, faces.to(on), viewmats, Ks.to(on), width, height, near_plane=case.near_plane)
        return (*raster, interpolate(attributes, faces.to(on), raster.triangle_ids, raster.barycentrics))

    parity(call, (vertices, viewmats, attributes), (0, 1, 2), atol=1e-4)


def test_the_callers_stream_is_used():
    image, target, _ = image_cases()[0].inputs(FLOAT)
    want = photometric_loss(image.cuda(), target.cuda())
    stream = torch.cuda.Stream()
    x, y = image.cuda(), torch.zeros_like(target).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # so that a kernel on another stream would read y too early
        y.copy_(target.cuda())
        got = photometric_loss(x, y)
    stream.synchronize()
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensors_device_is_used():
    case = binding_cases()[1].inputs(FLOAT)
    with torch.cuda.device(0):
        got = bind_triangles(*to("cuda:1", case))
        assert torch.cuda.current_device() == 0
    assert got[0].device.index == 1
    assert torch.equal(got[0].cpu(), bind_triangles(*to("cuda:0", case))[0].cpu())


def test_a_step_can_be_captured_as_a_graph():
    image, target, mask = to("cuda", image_cases()[1].inputs(FLOAT))
    vertices, faces, binding, *local = to("cuda", binding_cases()[1].inputs(FLOAT))
    x = image.clone().requires_grad_()
    means = local[0].clone().requires_grad_()

    def step():
        x.grad = means.grad = None
        l1, ssim = photometric_loss(x, target, mask)
        bound = bind_triangles(vertices, faces, binding, means, *local[1:])
        (l1 - ssim + sum(y.square().sum() for y in bound)).backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    want = x.grad.clone(), means.grad.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(x.grad, want[0]) and torch.equal(means.grad, want[1])


def test_indices_are_checked_again_after_a_change():
    vertices, faces, binding, *local = to("cuda", binding_cases()[1].inputs(FLOAT))
    bind_triangles(vertices, faces, binding, *local)
    binding[0] = faces.shape[0]
    with pytest.raises(ValueError, match="binding must hold numbers of faces"):
        bind_triangles(vertices, faces, binding, *local)


def test_inference_mode():
    """Tensors made in it have no versions by which a change of their indices could be noticed."""
    vertices, faces, viewmats, Ks, width, height = to("cuda", mesh_cases()[0].inputs(FLOAT))
    shared = to("cuda", binding_cases()[1].inputs(FLOAT))

    def results(faces, bound):
        raster = rasterize_mesh(vertices, faces, viewmats, Ks, width, height)
        return *raster, interpolate(vertices, faces, raster.triangle_ids, raster.barycentrics), *bind_triangles(*bound)

    want = results(faces, shared)
    with torch.inference_mode():
        inside = faces.clone(), tuple(x.clone() for x in shared)
        assert inside[0].is_inference()
        for _ in range(2):
            for a, b in zip(results(*inside), want, strict=True):
                assert torch.equal(a, b)
        inside[0][0, 0] = len(vertices.flatten())
        with pytest.raises(ValueError, match="faces must hold numbers of vertices"):
            results(*inside)
    assert all(torch.equal(a, b) for a, b in zip(results(faces, shared), want, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_capture_on_another_device_than_the_current_one():
    """Nothing may be read from the tensors' device then, which is not the one that torch asks by itself."""
    vertices, faces, binding, *local = to("cuda:1", binding_cases()[1].inputs(FLOAT))
    want = bind_triangles(vertices, faces, binding, *local)
    faces, binding, graph = faces.clone(), binding.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(1)), torch.cuda.device(0):
        got = bind_triangles(vertices, faces, binding, *local)
    with torch.cuda.device(1):
        graph.replay()
        torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_doubles_are_refused():
    inputs = to("cuda", binding_cases()[0].inputs(torch.float64))
    with pytest.raises(ValueError, match="on a GPU kernels are float32"):
        bind_triangles(*inputs)


def test_devices_do_not_mix():
    vertices, faces, binding, *local = binding_cases()[0].inputs(FLOAT)
    with pytest.raises(ValueError, match="must be on cuda:0 like the other tensors"):
        bind_triangles(vertices.cuda(), faces, binding.cuda(), *to("cuda", local))
