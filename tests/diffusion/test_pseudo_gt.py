"""Pseudo ground truths: GAF's viewpoints, an oracle network that gives the renders back, conditions made once, one-step targets."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.cameras import camera_position, from_angles
from gafcore.diffusion.encode import decode_latents, encode_pixels
from gafcore.diffusion.pipeline import MultiViewHeadPipeline
from gafcore.diffusion.pseudo_gt import PipelineTargets, random_views
from gafcore.rigs import load_rig

SIZE, WHITE = 16, torch.ones(3)


@pytest.fixture(scope="module")
def rig():
    return load_rig("procedural")


@pytest.fixture
def asked(rig, tiny_parts):
    """Everything that `targets` wants, and a maker of targets over a tiny pipeline."""
    g = torch.Generator().manual_seed(0)
    camera = from_angles(0, 0, 1.1, focal_px=60, width=24, height=32)
    cameras = random_views(rig.template, 4, SIZE, g)
    given = (torch.rand(32, 24, 4, generator=g), camera, rig.template, rig.faces, cameras, torch.rand(4, SIZE, SIZE, 3, generator=g), WHITE)

    def make(upsampler=False, **unet):
        return PipelineTargets(MultiViewHeadPipeline(**tiny_parts(upsampler=upsampler, **unet)))

    return given, make


def test_viewpoints_are_gafs(rig):
    cameras = random_views(rig.template, 400, 32, torch.Generator().manual_seed(1))
    middle = (rig.template.amin(0) + rig.template.amax(0)) / 2
    offset = torch.stack([camera_position(c) for c in cameras]) - middle
    distance = offset.norm(dim=1)
    elevation = torch.asin(offset[:, 1] / distance)
    azimuth = torch.atan2(offset[:, 0], offset[:, 2])
    for value, low, high in ((distance, 1.0, 1.2), (azimuth, -math.pi / 2, math.pi / 2), (elevation, -math.pi / 6, math.pi / 6)):
        span = high - low
        assert low - 1e-4 <= float(value.min()) < low + 0.05 * span and high - 0.05 * span < float(value.max()) <= high + 1e-4
        assert abs(float(value.mean()) - (low + high) / 2) < 0.06 * span  # uniform


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("level", [0.04, 0.5])
def test_an_oracle_gives_the_renders_back(level, one_step, asked, monkeypatch):
    given, make = asked
    maker = make()
    pipe = maker.pipeline
    with torch.no_grad():
        clean = encode_pixels(pipe.vae, 2 * given[5].permute(0, 3, 1, 2)[None] - 1)
        want = decode_latents(pipe.vae, clean)[0].permute(0, 2, 3, 1)
    times = []

    def oracle(x, t, prepared, guidance_scale):
        times.append(t)
        a = pipe.schedule.alphas_cumprod[t]
        return ((x.double() - a.sqrt() * clean) / (1 - a).sqrt()).float()

    monkeypatch.setattr(pipe, "denoise", oracle)
    out = maker.targets(*given, level, torch.Generator().manual_seed(3), one_step=one_step)
    torch.testing.assert_close(out, want, atol=1e-3, rtol=0)
    assert len(times) == (1 if one_step else round(50 * level)) and times[0] == round(1000 * level)


def test_conditions_are_encoded_once_a_key(asked, monkeypatch):
    given, make = asked
    maker, calls = make(), []
    original = maker.pipeline.prepare
    monkeypatch.setattr(maker.pipeline, "prepare", lambda *a, **k: calls.append(1) or original(*a, **k))
    maker.kept = 1
    for key, n in (("a", 1), ("a", 1), ("b", 2), ("a", 3), (None, 4), (None, 5)):
        maker.targets(*given, 0.02, torch.Generator().manual_seed(0), key=key)
        assert len(calls) == n
    kept = maker.targets(*given, 0.1, torch.Generator().manual_seed(1), key="a")
    torch.testing.assert_close(kept, maker.targets(*given, 0.1, torch.Generator().manual_seed(1)))


def test_picture_and_normals_matter_and_the_upsampler_doubles(asked):
    given, make = asked
    maker = make()
    out = maker.targets(*given, 0.5, torch.Generator().manual_seed(1))
    other = maker.targets(1 - given[0], *given[1:], 0.5, torch.Generator().manual_seed(1))
    turned = maker.targets(*given[:2], given[2].flip(-1), *given[3:], 0.5, torch.Generator().manual_seed(1))
    assert out.shape == (4, SIZE, SIZE, 3) and not out.requires_grad
    assert not torch.equal(out, other) and not torch.equal(out, turned)
    assert make(upsampler=True).targets(*given, 0.1, torch.Generator().manual_seed(1)).shape == (4, 2 * SIZE, 2 * SIZE, 3)
