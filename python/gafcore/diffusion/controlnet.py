"""Stable Diffusion under a ControlNet for normal maps, one view at a time: what GAF's table 3 compares its prior with.

The network never sees the person's picture; what it knows of them is the render that it starts from, the prompt, and, for a personalised
one, its weights. The folders are read by `sd_folder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.diffusion.conditioning import SD_GUIDANCE, NormalAxes
from gafcore.diffusion.encode import decode_latents, encode_pixels
from gafcore.diffusion.schedule import NoiseSchedule, strided_timesteps
from gafcore.mesh import normal_map
from gafcore.types import Camera

_TOWARDS_CAMERA = (0.0, 0.0, -1.0)


@dataclass(frozen=True)
class NormalControl:
    """Stable Diffusion's networks with a ControlNet, and a prompt that is encoded already.

    Attributes:
        vae: Autoencoder.
        unet: Denoiser.
        controlnet: Of the same widths as `unet`.
        schedule: Noise levels, and what `unet` predicts.
        text: The prompt's tokens.
        empty: Those of the empty prompt, for guidance; None where there is none: the prompt itself is empty, or the scale is 1.
        guidance_scale: 1 is none.
        axes: Directions in which red, green and blue of the ControlNet's normal maps grow.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    schedule: NoiseSchedule
    text: Float[Tensor, "1 L D"]
    empty: Float[Tensor, "1 L D"] | None = None
    guidance_scale: float = SD_GUIDANCE
    axes: NormalAxes = "left_up_back"

    @property
    def size(self) -> int:
        """Side of the pictures that the networks were trained on, pixels."""
        return int(self.unet.config.sample_size) * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def networks(self) -> dict[str, Any]:
        return {"vae": self.vae, "unet": self.unet, "controlnet": self.controlnet}

    @torch.no_grad()
    def predict(self, noisy: Float[Tensor, "1 4 h w"], t: int, control: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 4 h w"]:
        """The model's output at timestep `t`, guided away from that for the empty prompt; both branches see the normal map."""
        text = self.text if self.empty is None else torch.cat([self.empty, self.text])
        kind = dict(device=self.unet.device, dtype=self.unet.dtype)
        x, seen = (v.to(**kind).expand(len(text), -1, -1, -1) for v in (noisy, control))
        time = torch.tensor(t, device=self.unet.device)
        down, middle = self.controlnet(x, time, encoder_hidden_states=text, controlnet_cond=seen, return_dict=False)
        out = self.unet(
            x,
            time,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0].to(noisy)
        if self.empty is None:
            return out
        dropped, kept = out.chunk(2)
        return dropped + self.guidance_scale * (kept - dropped)

    @torch.no_grad()
    def denoise(
        self, clean: Float[Tensor, "1 4 h w"], noise: Float[Tensor, "1 4 h w"], control: Float[Tensor, "1 3 H W"], times: Sequence[int]
    ) -> Float[Tensor, "1 4 h w"]:
        """DDIM from `clean`, noised to the first of `times`, over the others, to the clean latent."""
        x = self.schedule.add_noise(clean, noise, times[0])
        for t, to in zip(times, [*times[1:], None], strict=True):
            x = self.schedule.step(self.predict(x, t, control), x, t, to)
        return x


@dataclass(frozen=True)
class ControlNetTargets:
    """Targets for any rig and views, as `pseudo_gt.PipelineTargets`.

    Attributes:
        control: The networks.
        stride: Timesteps between denoising steps.
    """

    control: NormalControl
    stride: int = 20

    @torch.no_grad()
    def targets(
        self,
        vertices: Float[Tensor, "V 3"],
        faces: Int[Tensor, "F 3"],
        cameras: Sequence[Camera],
        renders: Float[Tensor, "N s s 3"],
        level: float,
        generator: torch.Generator,
        *,
        one_step: bool = False,
    ) -> Float[Tensor, "N s s 3"]:
        """What `renders` should look like, 0..1, on the CPU. No gradient. Views are denoised one after the other: nothing joins them.

        Args:
            vertices: The posed rig, world space.
            faces: Its triangles.
            cameras: Of the renders, `control.size` wide and high.
            renders: The avatar from `cameras`, 0..1.
            level: Where to start, as a share of the noise schedule.
            generator: Of the noise.
            one_step: One prediction of the clean view instead of t / 20 steps.
        """
        networks, n = self.control, len(self.control.schedule)
        where = networks.unet.device
        times = strided_timesteps(min(n - 1, round(level * n)), n if one_step else self.stride)
        controls = control_pictures(normal_map(vertices, faces, list(cameras)), networks.axes).to(where)
        pictures = renders.permute(0, 3, 1, 2).to(where)
        made = []
        for picture, control in zip(pictures.split(1), controls.split(1), strict=True):
            clean = encode_pixels(networks.vae, 2 * picture - 1).float()
            noise = torch.randn(clean.shape, generator=generator).to(where)  # on the CPU, so that every device starts from the same
            made.append(decode_latents(networks.vae, networks.denoise(clean, noise, control, times)))
        return torch.cat(made).permute(0, 2, 3, 1).cpu()


def control_pictures(normals: Float[Tensor, "N H W 3"], axes: NormalAxes) -> Float[Tensor, "N 3 H W"]:
    """Camera-space normals (x right, y down, z forward; 0 where there is no mesh) as a ControlNet's pictures, 0..1.

    ControlNet 1.1's model for normals takes red to the left, green up and blue towards the camera. What is behind the head becomes a
    wall that faces the camera: a normal of length zero, grey, is in no picture that such a network saw.
    """
    nowhere = (normals == 0).all(-1, keepdim=True)
    filled = torch.where(nowhere, normals.new_tensor(_TOWARDS_CAMERA), normals)
    signs = normals.new_tensor([-1.0 if axes == "left_up_back" else 1.0, -1.0, -1.0])
    return ((signs * filled + 1) / 2).permute(0, 3, 1, 2)
