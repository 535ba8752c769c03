"""Results and gradients on a GPU's tensors are the CPU's, and the same bits when run again: the ops that test_devices.py leaves out.

`pytest -m gpu` asks the GPU. Without it the same tests ask the emulator (tests/simt), on those of the cases that it is quick with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gafcore import interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh
from gafcore.fitting import optim
from gafcore.ops import pair_room
from tests.cases import rasterization as scenes
from tests.cases.adam import optimised
from tests.cases.images import ImageCase, image_cases, small_image_cases
from tests.cases.meshes import mesh_cases
from tests.cases.skinning import HEAD, SkinningCase, skinning_cases
from tests.kernels import gpu_obstacle
from tests.simt.emulator import emulated
from tests.simt.parity import assert_close, with_gradients
from tests.simt.test_adam import adam_in_the_emulator
from tests.simt.test_rasterization import LONG, close, differentiable

FLOAT = torch.float32
GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]
WHERE = [pytest.param("cuda", marks=GPU), "emulator"]


def asked(cases: Sequence[Any], quick: Callable[[Any], bool]) -> list[Any]:
    """Places and cases: all on the GPU, in the emulator the quick ones."""
    return [pytest.param("cuda", c, marks=GPU, id=f"cuda-{c}") for c in cases] + [
        pytest.param("emulator", c, id=f"emulator-{c}") for c in cases if quick(c)
    ]


@pytest.fixture(autouse=True)
def no_rooms() -> Iterator[None]:
    pair_room.forget()
    yield
    pair_room.forget()


@contextmanager
def device_of(where: str, seed: int) -> Iterator[str]:
    """The device whose tensors go to csrc/cuda."""
    if where == "cuda":
        yield "cuda"
    else:
        with emulated("random", seed):
            yield "cpu"


def assert_parity(where: str, call, inputs: Sequence[Tensor], wrt: Sequence[int] = (), compare=assert_close) -> None:
    want, found = with_gradients(call, inputs, wrt), []
    for seed in range(2):
        with device_of(where, seed) as device:
            found.append(with_gradients(call, inputs, wrt, device=device))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), "two runs give different bits"
    compare(found[0], want)


@pytest.mark.parametrize(
    ("where", "case"), asked([*skinning_cases(), SkinningCase("nothing", 2, 0, HEAD)], lambda c: c.n_batch * c.n_vertices <= 300)
)
def test_linear_blend_skinning(where: str, case: SkinningCase) -> None:
    vertices, weights, *rest = case.inputs(FLOAT)

    def call(vertices, axis_angles, joints, translations):
        return (linear_blend_skinning(vertices, weights.to(vertices.device), axis_angles, joints, case.parents, translations),)

    assert_parity(where, call, (vertices, *rest), (0, 1, 2, 3))


@pytest.mark.parametrize("differentiated", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "valid"])
@pytest.mark.parametrize(("where", "case"), asked(image_cases(), lambda c: torch.Size(c.shape).numel() <= 2800))
def test_photometric_loss(where: str, case: ImageCase, padding, differentiated: bool) -> None:
    assert_photometric_parity(where, case, padding, (0,) if differentiated else ())


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("case", small_image_cases(), ids=str)
def test_photometric_loss_of_images_smaller_than_the_window(where: str, case: ImageCase) -> None:
    assert_photometric_parity(where, case, "zeros", (0,))


def assert_photometric_parity(where: str, case: ImageCase, padding, wrt: Sequence[int]) -> None:
    image, target, mask = case.inputs(FLOAT)

    def call(x):
        return photometric_loss(x, target.to(x.device), None if mask is None else mask.to(x.device), padding=padding)

    assert_parity(where, call, (image,), wrt)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("per_camera", [False, True])
def test_interpolate(where: str, channels: int, per_camera: bool) -> None:
    case = next(c for c in mesh_cases() if c.name == "soup")
    vertices, faces, viewmats, Ks, width, height = case.inputs(FLOAT)
    raster = rasterize_mesh(vertices, faces, viewmats, Ks, width, height)
    shape = (*((len(viewmats),) if per_camera else ()), len(vertices), channels)
    attributes = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def call(attributes, barycentrics):
        on = attributes.device
        return (interpolate(attributes, faces.to(on), raster.triangle_ids.to(on), barycentrics),)

    assert_parity(where, call, (attributes, raster.barycentrics), (0, 1))
    assert_parity(where, call, (attributes, raster.barycentrics), (0,))


def on_device(scene: scenes.Scene, like: Tensor) -> scenes.Scene:
    return replace(scene, Ks=scene.Ks.to(like.device))


QUICK = ("colors", "five_channels", "sh3_depth", "per_camera", "one_pixel")


@pytest.mark.parametrize(("where", "scene"), asked([*scenes.scenes(), *LONG], lambda s: s.name in QUICK))
def test_rasterization(where: str, scene: scenes.Scene) -> None:
    names = list(scene.inputs)

    def call(*values):
        image, alpha, meta = on_device(scene, values[0]).call(rasterization, dict(zip(names, values, strict=True)))
        return image, alpha, meta["means2d"], meta["depths"]

    assert_parity(where, call, [scene.inputs[k].float() for k in names], differentiable(scene), close)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_absolute_gradients(where: str, channels: int, rasterize_mode: str) -> None:
    scene = scenes.scene(n=40, scale=0.05, cameras=2, channels=channels, rasterize_mode=rasterize_mode, absgrad=True, width=21, height=19)

    def gradients(device: str) -> list[Tensor]:
        tensors = {k: v.float().to(device).requires_grad_() for k, v in scene.inputs.items()}
        image, _, meta = on_device(scene, tensors["means"]).call(rasterization, tensors)
        meta["means2d"].retain_grad()
        (image**2).sum().backward()
        return [meta["means2d"].absgrad.cpu(), meta["means2d"].grad.cpu()]

    want = gradients("cpu")
    with device_of(where, 0) as device:
        got = gradients(device)
    assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("where", "n"), asked([5, 300, 100_000], lambda n: n <= 300))
def test_adam(where: str, n: int, monkeypatch) -> None:
    want = optimised(n=n)
    if where == "emulator":
        monkeypatch.setattr(optim, "adam_cuda", adam_in_the_emulator)
    with device_of(where, 0) as device:
        got = optimised(device, n)
    assert got.keys() == want.keys()
    for name, x in got.items():
        torch.testing.assert_close(x, want[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
