"""What the fit asks of a prior's sampler, whichever model is behind it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class ViewSampler(Protocol):
    """Draws N views of the head in a picture. `MultiViewHeadPipeline` is one; the small shipped prior is another."""

    def __call__(
        self,
        image: Float[Tensor, "3 H W"],
        normal_maps: Float[Tensor, "N 3 H W"],
        renders: Float[Tensor, "N 3 H W"] | None = None,
        strength: float | None = None,
        *,
        warp: Float[Tensor, "N 3 H W"] | None = None,
        visibility: Float[Tensor, "N H W"] | None = None,
        viewmats: Float[Tensor, "N 4 4"] | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pt",
        return_dict: bool = False,
    ) -> tuple[Any, ...]:
        """Views [N, 3, h, w] in 0..1 as the only element of a tuple.

        Args:
            image: The input picture, 0..1.
            normal_maps: Camera-space normals of the rig in the target views, -1..1.
            renders: Where given, sampling starts from these noised to `strength` instead of from noise.
            strength: In (0, 1]: share of the noise schedule.
            warp: As in `ViewSample`, for models conditioned on it.
            visibility: As in `ViewSample`.
            viewmats: Cameras of the views, for models conditioned on poses.
            num_inference_steps: Steps over the whole schedule; from `strength` on only that share of them is taken.
            guidance_scale: 1 is no guidance.
            generator: The only source of randomness.
            output_type: "pt" for tensors.
            return_dict: False for a tuple.
        """
        ...
