"""Stable Diffusion under a ControlNet against diffusers' own pipeline and a loop written out, on random weights."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
import diffusers

from gafcore.cameras import from_angles
from gafcore.diffusion.controlnet import ControlNetTargets, control_pictures
from gafcore.diffusion.encode import decode_latents, encode_pixels
from gafcore.diffusion.sd_folder import load_normal_control
from gafcore.mesh import normal_map
from tests.cases.ball import ball
from tests.diffusion.tiny_sd import save_controlnet, save_sd

SIZE = 16
VERTICES, FACES = ball()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd")
    sd = save_sd(root / "sd")
    return sd, save_controlnet(root / "controlnet", sd)


def cameras(n: int):
    return [from_angles(a, 0.1, 1.0, focal_px=4 * SIZE, width=SIZE, height=SIZE) for a in torch.linspace(-1, 1, n).tolist()]


def renders(n: int, seed: int = 3):
    return torch.rand(n, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(seed))


def targets(networks, n: int = 1, level: float = 0.381, seed: int = 7, **options):
    rng = torch.Generator().manual_seed(seed)
    return ControlNetTargets(networks).targets(VERTICES, FACES, cameras(n), renders(n), level, rng, **options)


@pytest.mark.parametrize(("prompt", "scale"), [("", 7.5), ("a person", 1.0), ("a person", 7.5)])
def test_equals_diffusers_pipeline(folders, prompt, scale):
    """Its DDIM of 50 steps at strength 0.4 begins at timestep 381 and goes down by 20 to 1, and from there to the clean latent."""
    sd, controlnet = folders
    networks = load_normal_control(sd, controlnet, prompt, guidance_scale=scale)
    pipe = diffusers.StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        sd, controlnet=diffusers.ControlNetModel.from_pretrained(controlnet)
    )
    pipe.set_progress_bar_config(disable=True)
    clean = encode_pixels(networks.vae, 2 * renders(1).permute(0, 3, 1, 2) - 1)
    want = pipe(
        prompt, image=clean, control_image=control_pictures(normal_map(VERTICES, FACES, cameras(1)), "left_up_back"), height=SIZE,
        width=SIZE, strength=0.4, num_inference_steps=50, guidance_scale=scale, generator=torch.Generator().manual_seed(7),
        controlnet_conditioning_scale=1.0, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(targets(networks), decode_latents(networks.vae, want).permute(0, 2, 3, 1), atol=2e-5, rtol=0)


def test_v_prediction_equals_a_loop_written_out(tmp_path):
    """Timesteps 40 and 20, the second step going to the clean latent; alpha and sigma by the definition of v."""
    sd = save_sd(tmp_path / "sd", prediction="v_prediction")
    networks = load_normal_control(sd, save_controlnet(tmp_path / "controlnet", sd))
    control = control_pictures(normal_map(VERTICES, FACES, cameras(1)), "left_up_back")
    a = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    clean = encode_pixels(networks.vae, 2 * renders(1).permute(0, 3, 1, 2) - 1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    x = a[40].sqrt().float() * clean + (1 - a[40]).sqrt().float() * noise
    with torch.no_grad():
        for t, to in ((40, 20), (20, None)):
            down, middle = networks.controlnet(x, t, networks.text, control, return_dict=False)
            v = networks.unet(
                x, t, networks.text, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample  # fmt: skip
            alpha, sigma = math.sqrt(a[t]), math.sqrt(1 - a[t])
            x0, e = alpha * x - sigma * v, sigma * x + alpha * v
            x = x0 if to is None else math.sqrt(a[to]) * x0 + math.sqrt(1 - a[to]) * e
    want = decode_latents(networks.vae, x).permute(0, 2, 3, 1)
    torch.testing.assert_close(targets(networks, level=0.04), want, atol=1e-5, rtol=0)


def test_seed_prompt_normals_and_level_decide(folders):
    plain, prompted = (load_normal_control(*folders, prompt) for prompt in ("", "a person"))
    first = targets(plain)
    assert torch.equal(first, targets(plain)) and float(first.std()) > 0.01
    assert float((targets(plain, seed=8) - first).abs().max()) > 1e-3
    assert float((targets(plain, level=0.1) - first).abs().max()) > 1e-3
    assert float((targets(plain, one_step=True) - first).abs().max()) > 1e-3
    assert float((targets(prompted) - first).abs().max()) > 1e-4
    assert plain.empty is None and prompted.empty is not None  # an empty prompt has nothing to be guided away from
    rng = torch.Generator().manual_seed(7)
    turned = ControlNetTargets(plain).targets(VERTICES, FACES, cameras(2)[1:], renders(1), 0.381, rng)
    assert float((turned - first).abs().max()) > 1e-4


def test_views_are_denoised_one_by_one(folders):
    """Three at once: each as if it were alone with its share of the noise."""
    networks = load_normal_control(*folders)
    rng = torch.Generator().manual_seed(7)
    made = ControlNetTargets(networks)
    apart = [made.targets(VERTICES, FACES, [c], r[None], 0.2, rng) for c, r in zip(cameras(3), renders(3), strict=True)]
    assert torch.equal(targets(networks, 3, level=0.2), torch.cat(apart))


def test_colours_of_normals():
    """Facing the camera, to its right, up, and nowhere."""
    normals = torch.tensor([[[[0.0, 0, -1], [1, 0, 0]], [[0, -1, 0], [0, 0, 0]]]])
    front, right, up = (0.5, 0.5, 1), (0, 0.5, 0.5), (0.5, 1, 0.5)
    got = control_pictures(normals, "left_up_back")[0].permute(1, 2, 0)
    assert torch.equal(got, torch.tensor([[front, right], [up, front]]))
    assert control_pictures(normals, "right_up_back")[0, :, 0, 1].tolist() == [1, 0.5, 0.5]
