"""Samples from captures: crops and cameras that agree, targets and normals that fit, the same sample for the same number."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.captures.synthetic import SynthConfig
from gafcore.diffusion.capture_samples import CaptureSamples, crop_image, square_crop
from gafcore.diffusion.sample import collate
from gafcore.errors import InputError
from gafcore.rigs import load_rig
from gafcore.types import Camera

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.train_data import _all_views, captures_of, pictures_of


@pytest.fixture(scope="module")
def capture():
    return _all_views(SynthConfig(seed=4, size=96, n_timesteps=2, n_cameras=7, samples=1, page_px=64, hair="short"))


@pytest.fixture(scope="module")
def samples(capture):
    return CaptureSamples([capture], size=32, n_views=3, per_capture=5, seed=1)


def test_a_sample(samples):
    sample = samples[0]
    shapes = {name: tuple(x.shape) for name, x in sample.tensors()}
    assert shapes == dict(
        image=(32, 32, 3), image_normals=(32, 32, 3), targets=(3, 32, 32, 3), masks=(3, 32, 32), normals=(3, 32, 32, 3),
        image_viewmat=(4, 4), image_K=(3, 3), viewmats=(3, 4, 4), Ks=(3, 3, 3),
    )  # fmt: skip
    assert all(bool(x.isfinite().all()) for _, x in sample.tensors())
    assert float(sample.targets.min()) >= 0 and float(sample.targets.max()) <= 1
    length = sample.normals.norm(dim=-1)
    assert bool(((length - 1).abs() < 1e-4).logical_or(length == 0).all())


def test_normals_lie_on_the_head(samples):
    """What the rig covers is head in the picture too: crop, camera and normal map agree."""
    for i in range(len(samples)):
        sample = samples[i]
        rig = sample.normals.norm(dim=-1) > 0.5
        assert 0.25 < float(rig.float().mean()) < 0.7
        rig[:, 18:] = False  # the rig's bust reaches further down than what synthetic people show of it
        assert int(rig.sum()) > 300 and float(sample.masks[rig].mean()) > 0.97
        assert float(sample.normals[..., 2][rig].mean()) < 0  # they look at the camera


def test_the_input_looks_into_the_face_and_is_no_target(samples):
    for i in range(len(samples)):
        sample = samples[i]
        assert all(not torch.equal(sample.image_viewmat, v) for v in sample.viewmats)
        away = -sample.image_viewmat[:3, :3].T @ sample.image_viewmat[:3, 3]
        assert float(torch.nn.functional.normalize(away, dim=0)[2]) > math.cos(math.radians(60))


def test_same_number_same_sample(capture, samples):
    again = CaptureSamples([capture], size=32, n_views=3, per_capture=5, seed=1)
    for name, value in samples[3].tensors():
        assert torch.equal(dict(again[3].tensors())[name], value), name
    other = CaptureSamples([capture], size=32, n_views=3, per_capture=5, seed=2)
    assert any(not torch.equal(other[i].targets, samples[i].targets) for i in range(5))
    assert len({samples[i].key for i in range(5)}) > 1
    with pytest.raises(IndexError):
        samples[5]


def test_batches(samples):
    batch = collate([samples[0], samples[1]])
    assert batch.targets.shape == (2, 3, 32, 32, 3) and batch.key == (samples[0].key, samples[1].key)
    small = CaptureSamples(samples.captures, size=16, n_views=3, per_capture=1)
    with pytest.raises(ValueError, match=r"image: \(32, 32, 3\) and \(16, 16, 3\)"):
        collate([samples[0], small[0]])


def test_crop_follows_the_camera():
    """A wide, low picture: points of the world land in the crop where its camera puts them."""
    rig = load_rig("procedural")
    camera = Camera(torch.eye(4), torch.tensor([[400.0, 0, 275], [0, 380.0, 401], [0, 0, 1]]), 550, 802)
    points = rig.template @ torch.diag(torch.tensor([1.0, -1.0, -1.0])) + torch.tensor([0.1, -0.05, 1.1])
    cropped, (left, top, side) = square_crop(camera, points, 64)
    pixels = points @ camera.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    moved = points @ cropped.K.T
    moved = moved[:, :2] / moved[:, 2:]
    torch.testing.assert_close(moved, (pixels - torch.tensor([left, top])) * 64 / side, atol=1e-3, rtol=1e-4)
    assert float(moved.min()) > 4 and float(moved.max()) < 60 and float((moved.amax(0) - moved.amin(0)).max()) > 50


def test_crop_of_a_ramp_is_exact_and_outside_is_filled():
    y, x = torch.meshgrid(torch.arange(40.0) + 0.5, torch.arange(60.0) + 0.5, indexing="ij")
    image = torch.stack([x, y], -1)
    out = crop_image(image, (10.0, 4.0, 32.0), 8, torch.zeros(2))
    centre = (torch.arange(8) + 0.5) * 4
    torch.testing.assert_close(out[..., 0], (10 + centre).expand(8, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[..., 1], (4 + centre)[:, None].expand(8, 8), atol=1e-3, rtol=0)
    assert torch.equal(crop_image(image, (100.0, 100.0, 8.0), 4, torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]).expand(4, 4, 2))


def test_carried_colours_get_the_background(capture):
    class Carried:
        fill, visibility, mask = torch.full((3, 32, 32, 3), 0.25), torch.ones(3, 32, 32), torch.zeros(3, 32, 32)

    def carry(rgba, camera, targets, vertices, faces):
        assert rgba.shape == (32, 32, 4) and len(targets) == 3
        # Colour times coverage: nothing where there is no head.
        assert float(rgba[..., :3][rgba[..., 3] == 0].max()) < 1e-5
        Carried.mask[:, 16:] = 1
        Carried.fill[:, :16] = 0
        return Carried

    sample = CaptureSamples([capture], size=32, n_views=3, per_capture=1, carry=carry)[0]
    assert float(sample.warp[:, :16].min()) == 1 and float(sample.warp[:, 16:].max()) == 0.25


def test_captures_without_enough_cameras(capture):
    with pytest.raises(InputError, match="more than 9 cameras, has at most 7"):
        CaptureSamples([capture], size=16, n_views=9)[0]
    with pytest.raises(InputError, match="no capture"):
        CaptureSamples([])
    with pytest.raises(InputError, match="named by seeds"):
        captures_of(["synthetic:x"], 32)
    assert len(captures_of(["synthetic:3-7"], 32)) == 5


def test_folders_in_vhaps_layout(capture, tmp_path):
    """NeRSemble's layout, written and read back: the same samples, up to the pictures' eight bits."""
    from gafcore.captures import vhap

    vhap.write(capture, tmp_path / "person")
    (tmp_path / "notes").mkdir()
    read = captures_of([str(tmp_path)], 32)
    assert len(read) == 1
    got, want = (CaptureSamples(c, size=32, n_views=3, per_capture=2, seed=1)[1] for c in (read, [capture]))
    assert got.timestep == want.timestep
    torch.testing.assert_close(got.normals, want.normals, atol=1e-3, rtol=0)
    torch.testing.assert_close(got.targets, want.targets, atol=0.01, rtol=0)


def test_wrong_names_of_data():
    with pytest.raises(InputError, match="by how many, as in people:1000"):
        pictures_of(["people:some"], TrainConfig())
    with pytest.raises(InputError, match="a power of two, got 48"):
        pictures_of(["synthetic:1"], TrainConfig(condition="warp", picture_size=48))
