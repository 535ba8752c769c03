"""The shipped prior as a sampler: load it, and draw views of the head in a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gafcore.diffusion.small.network import NetworkConfig, SmallPriorNetwork
from gafcore.diffusion.small.noise import ddim, mix
from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_path

FILE_NAME = "small_prior.safetensors"
_FULL_STEPS = 10  # of sampling from pure noise; more only lower PSNR
CONDITIONS = ("rig", "pose")


@dataclass(frozen=True)
class SmallPrior:
    """Two networks of one shape: `regression` answers at once, `diffusion`, where it was trained, denoises."""

    regression: SmallPriorNetwork
    diffusion: SmallPriorNetwork | None

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return self.regression.config.size

    @property
    def condition(self) -> str:
        """What says where a view is (`NetworkConfig.condition`)."""
        return self.regression.config.condition

    @property
    def n_views(self) -> int:
        """Views made together."""
        return self.regression.config.views

    def to(self, device: torch.device | str) -> SmallPrior:
        """Both networks there (moved, not copied); `regress` and `denoise` then take tensors of that device."""
        return SmallPrior(self.regression.to(device), None if self.diffusion is None else self.diffusion.to(device))

    @torch.no_grad()
    def regress(
        self, image: Float[Tensor, "B 6 H W"], fill: Float[Tensor, "B N 3 H W"], conditions: Float[Tensor, "B N 4 H W"]
    ) -> Float[Tensor, "B N 3 H W"]:
        """One pass: the mean of what the views may look like. Colours in -1..1, as `SmallPriorNetwork` takes them."""
        level = torch.full((image.shape[0],), SmallPriorNetwork.REGRESSION, device=image.device)
        return self.regression(torch.zeros_like(fill), level, image, fill, conditions).clamp(-1, 1)

    @torch.no_grad()
    def denoise(
        self,
        image: Float[Tensor, "B 6 H W"],
        fill: Float[Tensor, "B N 3 H W"],
        conditions: Float[Tensor, "B N 4 H W"],
        start: Float[Tensor, "B N 3 H W"] | None = None,
        strength: float = 1.0,
        *,
        steps: int = _FULL_STEPS,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B N 3 H W"]:
        """Views from noise, or from `start` noised to `strength` (SDEdit, Meng et al. 2022).

        Args:
            image: Input picture and its normals.
            fill: Warped and filled colours.
            conditions: Visibility and normals.
            start: Views to start from; with `strength` 1 they are not seen.
            strength: Noise level in (0, 1].
            steps: For the whole schedule; a share `strength` of them is taken.
            guidance: 1 for none; more moves away from what the normals alone suggest.
            generator: Of the noise.

        Raises:
            InputError: The prior has no network for this.
        """
        if self.diffusion is None:
            raise InputError("this prior holds a regression only; denoising needs one whose diffusion was trained too")
        network = self.diffusion
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {strength}")
        source = fill.device if generator is None else generator.device
        noise = torch.randn(fill.shape, generator=generator, device=source).to(fill.device)
        level = torch.full((fill.shape[0],), strength, device=fill.device)
        noisy = noise if start is None else mix(start, noise, level)
        taken = max(1, round(steps * strength))
        bare = _without_picture(image, fill, conditions) if guidance != 1 else None

        def clean(x: Tensor, t: float) -> Tensor:
            levels = torch.full((x.shape[0],), t, device=x.device)
            seen = network(x, levels, image, fill, conditions)
            return seen if bare is None else torch.lerp(network(x, levels, *bare), seen, guidance)

        return ddim(noisy, strength, taken, clean)

    @torch.no_grad()
    def __call__(
        self,
        image: Float[Tensor, "3 H W"],
        normal_maps: Float[Tensor, "N 3 H W"],
        renders: Float[Tensor, "N 3 H W"] | None = None,
        strength: float | None = None,
        *,
        warp: Float[Tensor, "N 3 H W"] | None = None,
        visibility: Float[Tensor, "N H W"] | None = None,
        viewmats: Float[Tensor, "N 4 4"] | None = None,  # noqa: ARG002  (normals say where the views are)
        image_normals: Float[Tensor, "3 H W"] | None = None,
        num_inference_steps: int = _FULL_STEPS,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pt",
        return_dict: bool = False,
    ) -> tuple[Any, ...]:
        """As `gafcore.diffusion.protocols.ViewSampler`: views [N, 3, H, W] in 0..1, all tensors `size` pixels wide and high.

        Raises:
            ValueError: `warp` or `visibility` is missing, a shape does not fit, or another output is asked for.
            InputError: The prior's condition is "pose": such networks do not take these inputs, but those of `prepare`.
        """
        if self.condition != "rig":
            raise InputError(
                f"this prior's condition is {self.condition!r}: it takes neither normals nor warp, which a ViewSampler gives;"
                " call regress or denoise with what small/conditions.py prepares for that condition"
            )
        if output_type != "pt" or return_dict:
            raise ValueError(f"the small prior gives a tuple of tensors; got output_type {output_type!r}, return_dict {return_dict}")
        if warp is None or visibility is None:
            raise ValueError("the small prior needs warp and visibility: the input's colours carried through the rig (small/warp.py)")
        expected = (normal_maps.shape[0], 3, self.size, self.size)
        for name, x in (("normal_maps", normal_maps), ("warp", warp), ("renders", renders)):
            if x is not None and tuple(x.shape) != expected:
                raise ValueError(f"{name} must be {list(expected)}, got {list(x.shape)}")
        known = torch.zeros_like(image) if image_normals is None else image_normals
        picture = torch.cat([2 * image - 1, known])[None]
        conditions = torch.cat([visibility[:, None], normal_maps], 1)[None]
        start = None if renders is None else 2 * renders[None] - 1
        made = self.denoise(
            picture,
            2 * warp[None] - 1,
            conditions,
            start,
            1.0 if strength is None else strength,
            steps=num_inference_steps,
            guidance=guidance_scale,
            generator=generator,
        )
        return ((made[0] + 1) / 2,)


def _without_picture(image: Tensor, fill: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Only normals and the colour behind the head, which the fill shows in its corner."""
    behind = fill[..., :1, :1].expand_as(fill)
    return torch.zeros_like(image), behind, torch.cat([torch.zeros_like(conditions[:, :, :1]), conditions[:, :, 1:]], 2)


def save_prior(path: str | Path, weights: dict[str, dict[str, Tensor]], config: NetworkConfig, info: dict[str, Any]) -> None:
    """Write the networks ("diffusion" may be absent) in half precision, with their sizes and whatever `info` tells of their making."""
    tensors = {f"{task}.{name}": x.half().contiguous() for task in weights for name, x in weights[task].items()}
    metadata = {"format": "gafcore small prior 1", "network": json.dumps(config.to_json()), "info": json.dumps(info)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_prior(path: str | Path | None = None) -> SmallPrior:
    """The prior in a file of `save_prior`, in single precision; the shipped one without a path.

    Raises:
        MissingError: There is no such file.
        InputError: It is no small prior, or its tensors do not fit the sizes that it states.
    """
    if path is None:
        with resources.as_file(resources.files("gafcore.diffusion.small.data").joinpath(FILE_NAME)) as shipped:
            return _read(shipped)
    return _read(Path(path))


def _read(path: Path) -> SmallPrior:
    if not path.is_file():
        raise MissingError(f"{path}: no such file; a prior is what scripts/train_small_prior.py writes")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (no mapping)
        config = NetworkConfig(**json.loads(metadata["network"]))
        if config.condition not in CONDITIONS:
            raise ValueError(f"network.condition must be one of {', '.join(CONDITIONS)}, got {config.condition!r}")
        regression = _network(config, tensors, "regression")
        diffusion = _network(config, tensors, "diffusion") if any(name.startswith("diffusion.") for name in tensors) else None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is not a small prior that this gafcore can read ({error})") from None
    return SmallPrior(regression, diffusion)


def _network(config: NetworkConfig, tensors: dict[str, Tensor], task: str) -> SmallPriorNetwork:
    network = SmallPriorNetwork(config)
    network.load_state_dict({k.removeprefix(f"{task}."): v for k, v in tensors.items() if k.startswith(f"{task}.")})
    return network.eval().requires_grad_(False)
