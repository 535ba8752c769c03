"""Pseudo ground truths by a full-size multi-view pipeline (GAF, sections 4.1 and 4.2): a folder that `gafcore train-prior` wrote."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gafcore.captures.synthetic.noise import uniform
from gafcore.diffusion.small.warp import carry
from gafcore.errors import InputError, MissingError
from gafcore.fitting.cut_out import cut_out
from gafcore.fitting.prior import PriorRequest
from gafcore.fitting.pseudo import PseudoConfig, PseudoTruths, rendered_capacity, rendered_set

INDEX = "model_index.json"


def need_diffusers(folder: str | Path) -> None:
    """Say what to install before a folder is read.

    Raises:
        MissingError: The extra `diffusion` is not installed.
    """
    if find_spec("diffusers") is None:
        raise MissingError(f"{folder}: is read by diffusers, which needs pip install 'gafcore[diffusion]'")


def load_pipeline(folder: str | Path) -> Any:
    """The pipeline in a folder, in half precision on a GPU where there is one.

    Raises:
        MissingError: The extra `diffusion` is not installed, or there is no pipeline.
        InputError: It cannot be read.
    """
    need_diffusers(folder)
    from gafcore.diffusion.pipeline import MultiViewHeadPipeline

    gpu = torch.cuda.is_available()
    try:
        made = MultiViewHeadPipeline.from_pretrained(
            folder, torch_dtype=torch.bfloat16 if gpu else torch.float32, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # what diffusers raises on damaged folders is not documented
        raise InputError(f"{folder}: no readable pipeline ({type(error).__name__}: {str(error).splitlines()[0][:200]})") from None
    return made.to("cuda" if gpu else "cpu")


class PipelineTruths(PseudoTruths):
    """The pool of `PseudoTruths`, filled by a pipeline. Targets start from the avatar's renders, as in GAF; there is no regression here.

    Without `upsample` views are decoded as they are and resized: what is compared has as many pixels either way, so nothing but the
    upsampler makes the difference.
    """

    def __init__(self, pipeline: Any, config: PseudoConfig, *, upsample: bool = True) -> None:
        from gafcore.diffusion.pseudo_gt import PipelineTargets

        if config.prior_start not in ("render", "sds"):
            raise InputError(f"a pipeline starts from renders: prior_start must be render or sds, got {config.prior_start!r}")
        self.config, self._pool, self._trust, self._device = config, [], None, torch.device("cpu")
        self.upsample = upsample
        self._resized = pipeline.upsampler is not None and not upsample
        self._targets = PipelineTargets(pipeline, carry=carry if pipeline.unet.config.condition == "warp" else None, upsample=upsample)
        self.n_views = int(pipeline.unet.config.n_views)
        self.size = int(pipeline.unet.config.sample_size) * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        side = self.size * (1 if pipeline.upsampler is None else 2)
        self.capacity = rendered_capacity(config, self.n_views, side)

    @property
    def identity(self) -> str:
        from gafcore.diffusion.shards import fingerprint

        parts = self._targets.pipeline.components
        networks = {name: fingerprint(x) for name, x in parts.items() if isinstance(x, torch.nn.Module)}
        settings = [asdict(self.config), networks, *([] if self.upsample else ["no upsampler"])]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def move_to(self, device: torch.device) -> torch.device:  # noqa: ARG002
        """The networks stay where they were loaded; conditions are made on the CPU."""
        return torch.device("cpu")

    def _made(self, request: PriorRequest) -> dict[str, Tensor]:
        from gafcore.diffusion.pseudo_gt import random_views

        rng = request.generator
        cameras = random_views(request.vertices, self.n_views, self.size, rng)
        background = torch.rand(3, generator=rng)
        targets = self._targets.targets(
            cut_out(request.frame, request.captured_on), request.frame.camera, request.vertices, request.rig.faces, cameras,
            request.render(cameras, background).clamp(0, 1), background, uniform(rng, *self.config.prior_levels), rng,
            one_step=self.config.prior_start == "sds",
        )  # fmt: skip
        if self._resized:
            targets = interpolate(targets.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear").permute(0, 2, 3, 1)
        return rendered_set(targets, cameras, request.frame.timestep, background)
