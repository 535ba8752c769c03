"""GAF's pseudo ground truths from a full-size pipeline: an avatar's renders, noised and denoised, as what they should look like."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.cameras import from_angles, stack
from gafcore.diffusion.capture_samples import crop_image, square_crop
from gafcore.diffusion.pipeline import GUIDANCE, MultiViewHeadPipeline, Prepared
from gafcore.mesh import normal_map
from gafcore.types import Camera

# GAF, section 4.4.
AZIMUTH_RAD, ELEVATION_RAD, DISTANCE_M = math.radians(90), math.radians(30), (1.0, 1.2)
_RADIUS_M = 0.2  # of what a view shows at the mean distance: a head with hair and some neck


def random_views(vertices: Float[Tensor, "V 3"], n: int, size: int, generator: torch.Generator) -> list[Camera]:
    """GAF's viewpoints about a posed rig: azimuth within 90 degrees, elevation within 30, distance 1.0 to 1.2 m.

    About the world's axes through the middle of the rig: heads look along +z there, up to what they turn in the clip.
    """
    middle = ((vertices.amin(0) + vertices.amax(0)) / 2).tolist()
    focal_px = 0.5 * size * sum(DISTANCE_M) / 2 / _RADIUS_M
    draws = torch.rand(n, 3, generator=generator).tolist()
    return [
        from_angles(
            (2 * a - 1) * AZIMUTH_RAD,
            (2 * e - 1) * ELEVATION_RAD,
            DISTANCE_M[0] + d * (DISTANCE_M[1] - DISTANCE_M[0]),
            focal_px=focal_px,
            width=size,
            height=size,
            target=middle,
        )
        for a, e, d in draws
    ]


@dataclass
class PipelineTargets:
    """Targets for any picture, rig and views. Encoded conditions are kept for the last few (picture, views).

    Attributes:
        pipeline: The prior.
        guidance_scale: 1 is none.
        stride: Timesteps between denoising steps.
        carry: As in `CaptureSamples`, for models conditioned on warped pictures.
        upsample: Use the pipeline's upsampler, if it has one.
        kept: Conditions kept, the oldest leaving. At 256 x 256 in half precision a set of four takes under 0.1 MB, and with input_mode
            "reference" its picture's keys and values at full size 12 MB.
    """

    pipeline: MultiViewHeadPipeline
    guidance_scale: float = GUIDANCE
    stride: int = 20
    carry: Callable[..., Any] | None = None
    upsample: bool = True
    kept: int = 8
    _prepared: OrderedDict[Hashable, Prepared] = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        self.pipeline.set_progress_bar_config(disable=True)
        if self.pipeline.unet.device.type == "cuda" and not hasattr(self.pipeline.unet, "_hf_hook"):
            self.pipeline.enable_graphs()

    def targets(
        self,
        rgba: Float[Tensor, "h w 4"],
        camera: Camera,
        vertices: Float[Tensor, "V 3"],
        faces: Int[Tensor, "F 3"],
        cameras: Sequence[Camera],
        renders: Float[Tensor, "N s s 3"],
        background: Float[Tensor, "3"],
        level: float,
        generator: torch.Generator,
        *,
        key: Hashable = None,
        one_step: bool = False,
    ) -> Float[Tensor, "N t t 3"]:
        """What `renders` should look like, 0..1, on the CPU; twice their size where an upsampler is used. No gradient.

        Args:
            rgba: The picture to condition on: colour times coverage, and coverage.
            camera: That took it.
            vertices: The rig in that picture, world space.
            faces: Its triangles.
            cameras: Of the renders, square and of one size.
            renders: The avatar from `cameras`, on `background`.
            background: Behind picture and renders.
            level: Where to start, as a share of the noise schedule: GAF draws it from 0.02 to 0.98.
            generator: Of the noise.
            key: Names picture, rig and cameras, to find encoded conditions again; None does not keep them.
            one_step: One prediction of the clean views instead of t / 20 steps: with a squared loss, score distillation.

        Raises:
            ValueError: As the pipeline says.
        """
        prepared = self._prepared.get(key) if key is not None else None
        if prepared is None:
            prepared = self._prepare(rgba, camera, vertices, faces, cameras, background)
            if key is not None:
                self._prepared[key] = prepared
                while len(self._prepared) > self.kept:
                    self._prepared.popitem(last=False)
        pictures = renders.permute(0, 3, 1, 2)[None]
        n_timesteps = len(self.pipeline.schedule)
        views = self.pipeline(
            pictures[:, 0],  # stands in for the picture, which is in `prepared`
            torch.zeros_like(pictures),
            pictures,
            level,
            prepared=prepared,
            num_inference_steps=1 if one_step else n_timesteps // self.stride,
            guidance_scale=self.guidance_scale,
            generator=generator,
            output_type="pt",
            upsample=self.upsample,
            return_dict=False,
        )[0][0]
        return views.permute(0, 2, 3, 1).float().cpu()

    def _prepare(
        self, rgba: Tensor, camera: Camera, vertices: Tensor, faces: Tensor, cameras: Sequence[Camera], background: Tensor
    ) -> Prepared:
        size = cameras[0].width
        cropped, place = square_crop(camera, vertices, size)
        cut = crop_image(rgba, place, size, torch.zeros(4)).clamp(0, 1)
        picture = cut[..., :3] + (1 - cut[..., 3:]) * background
        extras: dict[str, Tensor] = {"viewmats": stack(cameras)[0][None]}
        if self.carry is not None:
            made = self.carry(cut, cropped, list(cameras), vertices, faces)
            extras["warp"] = (made.fill + background * (1 - made.mask[..., None])).permute(0, 3, 1, 2)[None]
            extras["visibility"] = made.visibility[None]
        normals = normal_map(vertices, faces, list(cameras)).permute(0, 3, 1, 2)[None]
        return self.pipeline.prepare(picture.permute(2, 0, 1)[None], normals, **extras)
