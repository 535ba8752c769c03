"""Pseudo ground truths by Stable Diffusion under a ControlNet for normal maps: the second and third row of GAF's table 3."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gafcore.captures.synthetic.noise import uniform
from gafcore.errors import InputError
from gafcore.fitting.pipeline_prior import need_diffusers
from gafcore.fitting.prior import PriorRequest
from gafcore.fitting.pseudo import PseudoConfig, PseudoTruths, rendered_capacity, rendered_set

_VIEWS = 4  # in a set, as in GAF's, though nothing joins them here


def make_controlnet_prior(
    sd: str | Path, controlnet: str | Path, config: PseudoConfig, prompt: str = "", **options: Any
) -> ControlNetTruths:
    """The prior over two folders, on the GPU where there is one; `options` as `diffusion.sd_folder.load_normal_control`.

    Raises:
        MissingError: The extra `diffusion` is not installed, or a folder or a part of it is absent.
        InputError: As `load_normal_control` and `ControlNetTruths`.
    """
    need_diffusers(sd)
    from gafcore.diffusion.sd_folder import load_normal_control

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ControlNetTruths(load_normal_control(sd, controlnet, prompt, device=device, **options), config)


def check_controlnet_prior(sd: str | Path, controlnet: str | Path) -> None:
    """Look whether all files are there, before long work.

    Raises:
        MissingError: The extra `diffusion` is not installed, or a folder or a part of it is absent.
    """
    need_diffusers(sd)
    from gafcore.diffusion.sd_folder import check_folders

    check_folders(sd, controlnet)


class ControlNetTruths(PseudoTruths):
    """The pool of `PseudoTruths`, filled from the avatar's renders: noised, and denoised as the rig's normal maps and the prompt say."""

    def __init__(self, networks: Any, config: PseudoConfig) -> None:
        from gafcore.diffusion.controlnet import ControlNetTargets

        if config.prior_start not in ("render", "sds"):
            raise InputError(f"Stable Diffusion starts from renders: prior_start must be render or sds, got {config.prior_start!r}")
        self.config, self.n_views, self.size = config, _VIEWS, networks.size
        self._pool, self._trust, self._device = [], None, torch.device("cpu")
        self._networks, self._targets = networks, ControlNetTargets(networks)
        self.capacity = rendered_capacity(config, self.n_views, self.size)

    @property
    def identity(self) -> str:
        from gafcore.diffusion.shards import fingerprint

        made = self._networks
        text = hashlib.sha256(made.text.float().cpu().numpy().tobytes()).hexdigest()
        settings = [asdict(self.config), text, made.empty is not None, made.guidance_scale, made.axes]
        weights = {name: fingerprint(x) for name, x in made.networks.items()}
        return hashlib.sha256(json.dumps([settings, weights], sort_keys=True).encode()).hexdigest()

    def move_to(self, device: torch.device) -> torch.device:  # noqa: ARG002
        """The networks stay where they were loaded; normal maps are made on the CPU."""
        return torch.device("cpu")

    def _made(self, request: PriorRequest) -> dict[str, Tensor]:
        from gafcore.diffusion.pseudo_gt import random_views

        rng = request.generator
        cameras = random_views(request.vertices, self.n_views, self.size, rng)
        background = torch.rand(3, generator=rng)
        renders = request.render(cameras, background).clamp(0, 1)
        level, one_step = uniform(rng, *self.config.prior_levels), self.config.prior_start == "sds"
        targets = self._targets.targets(request.vertices, request.rig.faces, cameras, renders, level, rng, one_step=one_step)
        return rendered_set(targets, cameras, request.frame.timestep, background)
