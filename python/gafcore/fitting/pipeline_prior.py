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

from gafcore.cameras import stack
from gafcore.captures.synthetic.noise import uniform
from gafcore.diffusion.small.warp import carry
from gafcore.errors import InputError, MissingError
from gafcore.fitting.prior import PriorRequest
from gafcore.fitting.pseudo import EPS2D, PseudoConfig, PseudoTruths, _cut_out

INDEX = "model_index.json"


def load_pipeline(folder: str | Path) -> Any:
    """The pipeline in a folder, in half precision on a GPU where there is one.

    Raises:
        MissingError: The extra `diffusion` is not installed, or there is no pipeline.
        InputError: It cannot be read.
    """
    if find_spec("diffusers") is None:
        raise MissingError(f"{folder}: is a diffusers pipeline, which needs pip install 'gafcore[diffusion]'")
    from gafcore.diffusion.pipeline import MultiViewHeadPipeline

    gpu = torch.cuda.is_available()
    try:
        made = MultiViewHeadPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16 if gpu else torch.float32, local_files_only=True)
    except Exception as error:  # what diffusers raises on damaged folders is not documented
        raise InputError(f"{folder}: no readable pipeline ({type(error).__name__}: {str(error).splitlines()[0][:200]})") from None
    return made.to("cuda" if gpu else "cpu")


class PipelineTruths(PseudoTruths):
    """The pool of `PseudoTruths`, filled by a pipeline. Targets start from the avatar's renders, as in GAF; there is no regression here."""

    def __init__(self, pipeline: Any, config: PseudoConfig) -> None:
        from gafcore.diffusion.pseudo_gt import PipelineTargets

        if config.prior_start not in ("render", "sds"):
            raise InputError(f"a pipeline starts from renders: prior_start must be render or sds, got {config.prior_start!r}")
        self.config, self._pool = config, []
        self._targets = PipelineTargets(pipeline, carry=carry if pipeline.unet.config.condition == "warp" else None)
        self.n_views = int(pipeline.unet.config.n_views)
        self.size = int(pipeline.unet.config.sample_size) * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        side = self.size * (1 if pipeline.upsampler is None else 2)
        self.capacity = max(1, config.prior_mb * 1_000_000 // (self.n_views * (side**2 * 4 + 100) + 64))

    @property
    def identity(self) -> str:
        from gafcore.diffusion.shards import fingerprint

        parts = self._targets.pipeline.components
        networks = {name: fingerprint(x) for name, x in parts.items() if isinstance(x, torch.nn.Module)}
        return hashlib.sha256(json.dumps([asdict(self.config), networks], sort_keys=True).encode()).hexdigest()

    def _made(self, request: PriorRequest) -> dict[str, Tensor]:
        from gafcore.diffusion.pseudo_gt import random_views

        rng = request.generator
        cameras = random_views(request.vertices, self.n_views, self.size, rng)
        background = torch.rand(3, generator=rng)
        targets = self._targets.targets(
            _cut_out(request), request.frame.camera, request.vertices, request.rig.faces, cameras,
            request.render(cameras, background).clamp(0, 1), background, uniform(rng, *self.config.prior_levels), rng,
            one_step=self.config.prior_start == "sds",
        )  # fmt: skip
        viewmats, Ks = stack(cameras)
        side = targets.shape[1]
        Ks = Ks * torch.tensor([side / self.size, side / self.size, 1.0])[:, None]
        values = (255 * targets + 0.5).clamp(0, 255).to(torch.uint8)
        seen = torch.zeros(targets.shape[:3], dtype=torch.uint8)
        moment = torch.tensor(request.frame.timestep)
        pixels = dict(side=torch.tensor(side), eps2d=torch.tensor(EPS2D))
        return dict(targets=values, seen=seen, **pixels, background=background, viewmats=viewmats, Ks=Ks, timestep=moment)
