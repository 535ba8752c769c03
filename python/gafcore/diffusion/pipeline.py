"""GAF's prior as a diffusers pipeline: one picture and normal maps in, views of the head out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.schedulers import DDIMScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from gafcore.attention.processor import References
from gafcore.diffusion.encode import clip_features, decode_latents, encode_pixels, view_channels
from gafcore.diffusion.graphed import Capture, GraphedUNet, capture_graph
from gafcore.diffusion.pictures import from_tensor, is_single, to_tensor
from gafcore.diffusion.schedule import NoiseSchedule, strided_timesteps
from gafcore.diffusion.unet import MultiViewUNet, ViewCondition
from gafcore.diffusion.upsampler import STEPS, LatentUpsampler, upsample

Generators = torch.Generator | Sequence[torch.Generator] | None
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
# Of our choice: the paper names no scale. ImageDream's 5 saturates colours, which a fit would bake in; 1 would be no guidance.
GUIDANCE = 3.0


@dataclass
class MultiViewHeadOutput(BaseOutput):
    """`images`: N views a head; a list of lists, or with one more dimension, for several heads."""

    images: Any


@dataclass(frozen=True)
class Prepared:
    """A picture and its views' conditions, encoded: everything of a call that does not depend on noise. Good for many calls."""

    condition: ViewCondition
    references: References

    @property
    def shape(self) -> tuple[int, ...]:
        """Heads, channels, height and width of the picture's latent."""
        return tuple(self.condition.image_latents.shape)


class MultiViewHeadPipeline(DiffusionPipeline):
    """Denoises N views of the head in a picture jointly, where normal maps of its rig say how they look at it (GAF, sections 4.1 and 4.2).

    Args:
        vae: Stable Diffusion's autoencoder, or one trained by `gafcore train-prior --model autoencoder`.
        image_encoder: CLIP's vision tower.
        unet: The multi-view denoiser.
        scheduler: Gives the noise schedule and the kind of prediction; DDIM's steps are made here, in strides from any timestep.
        upsampler: Doubles the views' size; optional.
    """

    model_cpu_offload_seq = "image_encoder->unet->upsampler->vae"
    _optional_components = ["upsampler"]  # noqa: RUF012 - diffusers' own form
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        unet: MultiViewUNet,
        scheduler: DDIMScheduler,
        upsampler: LatentUpsampler | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler, upsampler=upsampler)
        self._graphed: GraphedUNet | None = None

    def enable_graphs(self, capture: Capture = capture_graph) -> None:
        """Run the denoiser as CUDA graphs from now on, for the memory of a pass each (`gafcore.diffusion.graphed`).

        Args:
            capture: How to make a repeatable call; for tests.

        Raises:
            ValueError: The denoiser is not on a GPU, or is offloaded between calls.
        """
        graphed = GraphedUNet(self.unet, capture)
        if hasattr(self.unet, "_hf_hook"):
            raise ValueError(
                "a denoiser that is offloaded moves between calls, so its passes cannot be CUDA graphs; leave one of the two out"
            )
        if not graphed.possible():
            raise ValueError(f"CUDA graphs need a denoiser on a GPU, got one on {self.unet.device}; move the pipeline with .to()")
        self._graphed = graphed

    @property
    def _model(self) -> MultiViewUNet | GraphedUNet:
        """The denoiser, by graphs where they are enabled and it is still the one that they were enabled for, on a GPU, to stay there."""
        graphed = self._graphed
        return graphed if graphed is not None and graphed.unet is self.unet and graphed.possible() else self.unet

    def disable_graphs(self) -> None:
        """Launch the denoiser's kernels one by one again, and give the graphs' memory back."""
        self._graphed = None

    @property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(self.scheduler)

    @torch.no_grad()
    def prepare(
        self,
        image: Float[Tensor, "B 3 H W"],
        normal_maps: Float[Tensor, "B N 3 H W"],
        *,
        warp: Float[Tensor, "B N 3 H W"] | None = None,
        visibility: Float[Tensor, "B N H W"] | None = None,
        viewmats: Float[Tensor, "B N 4 4"] | None = None,
    ) -> Prepared:
        """Encode a picture (0..1) and normal maps (-1..1); a fit keeps the result for as long as both stay.

        Raises:
            ValueError: Sizes do not fit, or the model is conditioned on what is missing.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1) * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if image.shape[-2:] != normal_maps.shape[-2:] or image.shape[-1] % factor or image.shape[-2] % factor:
            raise ValueError(
                f"image and normal_maps must have one size, a multiple of {factor}, got {list(image.shape)} and {list(normal_maps.shape)}"
            )
        if len(image) != len(normal_maps):
            raise ValueError(f"every picture needs its normal maps, got {len(image)} pictures and {len(normal_maps)} sets")
        device, dtype = self._execution_device, self.unet.dtype
        tokens = self.unet.config.image_embedding == "resampler"
        channels = view_channels(self.vae, self.unet.config.condition, normal_maps.to(device), _on(warp, device), _on(visibility, device))
        condition = ViewCondition(
            image_latents=encode_pixels(self.vae, 2 * image.to(device) - 1).to(device, dtype),
            clip=clip_features(self.image_encoder, image.to(device), tokens=tokens).to(device, dtype),
            channels=None if channels is None else channels.to(device, dtype),
            viewmats=_on(viewmats, device),
        )
        return Prepared(condition, {})

    @torch.no_grad()
    def denoise(self, latents: Float[Tensor, "B N C h w"], t: int, prepared: Prepared, guidance_scale: float = 1.0) -> Tensor:
        """The model's output at timestep `t`, guided: for samplers, and for score distillation."""
        guided = guidance_scale != 1
        time = torch.tensor(t, device=latents.device)
        out = self._model(latents, time, prepared.condition, prepared.references, both=guided)
        if not guided:
            return out
        dropped, kept = out.chunk(2)
        return dropped + guidance_scale * (kept - dropped)

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        normal_maps: Any,
        renders: Any = None,
        strength: float | None = None,
        *,
        warp: Any = None,
        visibility: Tensor | None = None,
        viewmats: Tensor | None = None,
        latents: Tensor | None = None,
        prepared: Prepared | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = GUIDANCE,
        generator: Generators = None,
        output_type: str = "pil",
        upsample: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> MultiViewHeadOutput | tuple[Any]:
        """Draw views.

        Args:
            image: The picture, 0..1: PIL, array [H, W, 3] or tensor [3, H, W]; a list, or one dimension more, for several heads.
            normal_maps: Camera-space normals of the rig, -1..1 (PIL images are read as (n + 1) / 2): N of them, or sets of N.
            renders: What the views look like so far, 0..1, as `normal_maps`; noised to `strength` they are the start.
            strength: Timestep to start from as a share of the schedule, in (0, 1]; only with `renders`, and needed there.
            warp: The picture's colours carried to the views, 0..1, for models conditioned on them.
            visibility: [N, H, W] or [B, N, H, W]: where `warp` is known.
            viewmats: [N, 4, 4] or [B, N, 4, 4], for models conditioned on poses.
            latents: Noise to start from instead of drawing it, [B, N, C, h, w].
            prepared: From `prepare`, for the same picture and views: spares encoding them again.
            num_inference_steps: Steps for the whole schedule: 50 is GAF's stride of 20.
            guidance_scale: 1 is none.
            generator: One, or one for each head; on the CPU it gives the same noise on every device.
            output_type: "pil", "np", "pt" or "latent".
            upsample: Use the upsampler, if there is one.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors); may return tensors to go on with.
            callback_on_step_end_tensor_inputs: Which tensors it gets: "latents".
            return_dict: False returns a tuple.

        Raises:
            ValueError: An argument does not fit; the message says which.
        """
        self._check(renders, strength, output_type, num_inference_steps, callback_on_step_end_tensor_inputs)
        pictures, normals = to_tensor("image", image, 4), _normals(normal_maps)
        if prepared is None:
            prepared = self.prepare(
                pictures,
                normals,
                warp=None if warp is None else to_tensor("warp", warp, 5),
                visibility=visibility[None] if visibility is not None and visibility.dim() == 3 else visibility,
                viewmats=viewmats[None] if viewmats is not None and viewmats.dim() == 3 else viewmats,
            )
        times = self._timesteps(strength, num_inference_steps)
        x = self._start(prepared, normals.shape[1], renders, times[0], latents, generator)
        schedule = self.schedule
        with self.progress_bar(total=len(times)) as progress:
            for i, (t, to) in enumerate(zip(times, [*times[1:], None], strict=True)):
                x = schedule.step(self.denoise(x, t, prepared, guidance_scale), x, t, to)
                if callback_on_step_end is not None:
                    given = dict.fromkeys(callback_on_step_end_tensor_inputs, x)
                    x = (callback_on_step_end(self, i, t, given) or {}).get("latents", x)
                progress.update()
        if upsample and self.upsampler is not None:
            x = self._upsample(x, generator)
        images = x if output_type == "latent" else decode_latents(self.vae, x)
        images = images[0] if is_single(image) else images
        self.maybe_free_model_hooks()
        images = images if output_type == "latent" else from_tensor(images, output_type)
        return MultiViewHeadOutput(images=images) if return_dict else (images,)

    def _timesteps(self, strength: float | None, num_inference_steps: int) -> list[int]:
        n = len(self.schedule)
        start = n - 1 if strength is None else min(n - 1, round(strength * n))
        return strided_timesteps(start, n // num_inference_steps)

    def _start(
        self, prepared: Prepared, n_views: int, renders: Any, t: int, latents: Tensor | None, generator: Generators
    ) -> Float[Tensor, "B N C h w"]:
        n_heads, *latent_shape = prepared.shape
        shape, device = (n_heads, n_views, *latent_shape), self._execution_device
        if latents is None:
            seeds = list(generator) if isinstance(generator, Sequence) else generator
            noise = randn_tensor(shape, generator=seeds, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents must be {list(shape)}, got {list(latents.shape)}")
        else:
            noise = latents.to(device, torch.float32)
        if renders is None:
            return noise
        pictures = to_tensor("renders", renders, 5).to(device)
        if pictures.shape[:2] != shape[:2]:
            raise ValueError(f"renders must be {n_heads} sets of {n_views} views as normal_maps, got {list(pictures.shape)}")
        return self.schedule.add_noise(encode_pixels(self.vae, 2 * pictures - 1).to(noise), noise, t)

    def _upsample(self, x: Float[Tensor, "B N C h w"], generator: Generators) -> Float[Tensor, "B N C H W"]:
        seeds = list(generator) if isinstance(generator, Sequence) else generator
        large = (*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4])
        noise, low_noise = (randn_tensor(s, generator=seeds, device=x.device, dtype=x.dtype) for s in (large, tuple(x.shape)))
        flat = (v.flatten(0, 1) for v in (x, noise, low_noise))
        return upsample(self.upsampler, self.schedule, *flat, steps=STEPS).unflatten(0, x.shape[:2])

    def _check(self, renders: Any, strength: float | None, output_type: str, steps: int, inputs: Sequence[str]) -> None:
        if (renders is None) != (strength is None):
            raise ValueError("renders and strength go together: how far to noise what; pass both or none")
        if strength is not None and not 0 < strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {strength}")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}")
        if not 1 <= steps <= len(self.schedule):
            raise ValueError(f"num_inference_steps must be in 1..{len(self.schedule)}, got {steps}")
        unknown = [name for name in inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs may be {', '.join(self._callback_tensor_inputs)}, got {', '.join(unknown)}"
            )


def _on(x: Tensor | None, device: torch.device) -> Tensor | None:
    return None if x is None else x.to(device)


def _normals(normal_maps: Any) -> Float[Tensor, "B N 3 H W"]:
    """Normal maps as tensors; PIL images hold (n + 1) / 2."""
    first = normal_maps
    while isinstance(first, Sequence) and len(first):
        first = first[0]
    x = to_tensor("normal_maps", normal_maps, 5)
    return 2 * x - 1 if hasattr(first, "convert") else x
