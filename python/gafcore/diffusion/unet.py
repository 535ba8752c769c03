"""GAF's multi-view denoiser: Stable Diffusion's UNet over all views of a head at once, told what they are views of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor

from gafcore.attention.processor import MultiViewAttnProcessor, References, Views
from gafcore.diffusion.conditioning import POSE_SIZE, Condition, GlobalTokens, Resampler, extra_channels, pose_vectors

InputMode = Literal["frame", "reference"]


@dataclass(frozen=True)
class ViewCondition:
    """What B heads are drawn from. `keep` False drops the picture (latent and CLIP together); normals and poses stay (GAF, section 4.4).

    Attributes:
        image_latents: Clean latent of the input picture.
        clip: CLIP's image embedding [B, D], or its penultimate layer's tokens [B, T, D] for a resampler.
        channels: Latents of normal maps, or of normal maps and warped pictures with visibility; None for conditions without channels.
        viewmats: World-to-camera matrices, for poses.
        keep: Which heads keep their picture; None keeps all.
        image_channels: `channels` of the input frame, where the model takes the input as a frame; zeros where None.
    """

    image_latents: Float[Tensor, "B C h w"]
    clip: Float[Tensor, "B D"] | Float[Tensor, "B T D"]
    channels: Float[Tensor, "B N X h w"] | None = None
    viewmats: Float[Tensor, "B N 4 4"] | None = None
    keep: Tensor | None = None
    image_channels: Float[Tensor, "B X h w"] | None = None


def _with_dropped(condition: ViewCondition) -> ViewCondition:
    """The heads twice: with their pictures dropped, and as they are."""
    keep = condition.keep
    if keep is None:
        keep = torch.ones(len(condition.image_latents), dtype=torch.bool, device=condition.image_latents.device)

    names = ("image_latents", "clip", "channels", "viewmats", "image_channels")
    given = {name: getattr(condition, name) for name in names}
    doubled = {name: torch.cat([x, x]) for name, x in given.items() if x is not None}
    return replace(condition, **doubled, keep=torch.cat([torch.zeros_like(keep), keep]))


class MultiViewUNet(ModelMixin, ConfigMixin):
    """Denoises N views jointly. The UNet inside is diffusers' own; this class arranges its batch and sets its attention processors.

    `condition`: "normals" (GAF), "pose" (camera embedding, as MVDream), "none", or "warp" (normals, plus the picture's colours carried to
    the views through the rig, plus where they are known). `input_mode`: "frame" puts the picture's latent beside the noisy ones as one more
    frame at the same timestep (ImageDream); "reference" runs it once alone at timestep 0 and keeps its keys and values for all steps.
    `attention`: "3d" over all views, "2d" over each view alone, the picture seen in both. `image_embedding`: "global" or "resampler".
    The defaults are Stable Diffusion 2.1's sizes.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("BasicTransformerBlock", "ResnetBlock2D")

    @register_to_config
    def __init__(
        self,
        n_views: int = 4,
        latent_channels: int = 4,
        condition: Condition = "normals",
        input_mode: InputMode = "frame",
        attention: Literal["3d", "2d"] = "3d",
        image_embedding: Literal["global", "resampler"] = "global",
        clip_dim: int = 1024,
        n_image_tokens: int = 16,
        resampler_depth: int = 4,
        resampler_heads: int = 12,
        resampler_head_dim: int = 64,
        sample_size: int = 32,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        attention_levels: Sequence[bool] = (True, True, True, False),
        layers_per_block: int = 2,
        head_dim: int = 64,
        cross_attention_dim: int = 1024,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        for name, value, allowed in (("input_mode", input_mode, ("frame", "reference")), ("attention", attention, ("3d", "2d"))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if len(attention_levels) != len(block_out_channels) or any(c % head_dim for c in block_out_channels):
            raise ValueError(
                f"attention_levels must have one entry for each of block_out_channels, each a multiple of head_dim {head_dim}, "
                f"got {list(attention_levels)} and {list(block_out_channels)}"
            )
        down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention_levels]
        up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention_levels)]
        self.unet = UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=latent_channels + extra_channels(condition, latent_channels),
            out_channels=latent_channels,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            attention_head_dim=tuple(c // head_dim for c in block_out_channels),  # diffusers' name for the number of heads
            cross_attention_dim=cross_attention_dim,
            use_linear_projection=True,
            norm_num_groups=norm_num_groups,
            class_embed_type="projection" if condition == "pose" else None,
            projection_class_embeddings_input_dim=POSE_SIZE if condition == "pose" else None,
        )
        self.tokens = self._make_tokens()
        self.unet.set_attn_processor({name: MultiViewAttnProcessor(name) for name in self.unet.attn_processors})

    def _make_tokens(self) -> torch.nn.Module:
        c = self.config
        if c.image_embedding == "global":
            return GlobalTokens(c.clip_dim, c.cross_attention_dim)
        if c.image_embedding != "resampler":
            raise ValueError(f"image_embedding must be 'global' or 'resampler', got {c.image_embedding!r}")
        sizes = dict(n_tokens=c.n_image_tokens, depth=c.resampler_depth, heads=c.resampler_heads, head_dim=c.resampler_head_dim)
        return Resampler(c.clip_dim, c.cross_attention_dim, **sizes)

    def enable_gradient_checkpointing(self, *args, **kwargs) -> None:
        self.unet.enable_gradient_checkpointing(*args, **kwargs)

    def image_tokens(self, condition: ViewCondition) -> Float[Tensor, "B M C"]:
        """The picture's tokens for cross-attention; zeros where it is dropped."""
        tokens = self.tokens(condition.clip.to(self.dtype))
        return tokens if condition.keep is None else tokens * condition.keep[:, None, None].to(tokens)

    def make_references(self, condition: ViewCondition) -> References | None:
        """Keys and values of the pictures at every attention layer, for all steps; None with the picture as a frame.

        The picture is encoded even where it is dropped: attention leaves it out, so guidance's two branches share one pass.
        """
        if self.config.input_mode == "frame":
            return None
        latents = condition.image_latents.to(self.dtype)
        padding = latents.new_zeros(len(latents), self.unet.config.in_channels - latents.shape[1], *latents.shape[2:])
        tokens = self.tokens(condition.clip.to(self.dtype))
        pose = latents.new_zeros(len(latents), POSE_SIZE) if self.config.condition == "pose" else None
        views = Views(1).recording()
        time = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
        self.unet(torch.cat([latents, padding], 1), time, tokens, class_labels=pose, cross_attention_kwargs={"views": views})
        return views.references

    def forward(
        self,
        noisy: Float[Tensor, "B N C h w"],
        timestep: Tensor,
        condition: ViewCondition,
        references: References | None = None,
        *,
        both: bool = False,
    ) -> Float[Tensor, "B N C h w"]:
        """What the scheduler calls the model's output, for the N views.

        Args:
            noisy: Noisy latents of the views.
            timestep: [B] or scalar; shared by the views of a head.
            condition: Of the same B heads.
            references: A dictionary that keeps the pictures' keys and values from one step to the next, for `input_mode` "reference".
                Filled by the first call; pass an empty one for new pictures. Without it they are made at every call.
            both: Also compute the heads with their pictures dropped, for guidance: [2 B, N, C, h, w], the dropped ones first.

        Raises:
            ValueError: The condition lacks what the model is conditioned on, or sizes do not fit.
        """
        condition, given = self._checked(noisy, condition), noisy.dtype
        noisy = noisy.to(self.dtype)  # samplers keep their latents in single precision
        as_frame = self.config.input_mode == "frame"
        if not as_frame:
            references = {} if references is None else references
            references.update({} if references else self.make_references(condition) or {})
        if both:
            noisy, condition = torch.cat([noisy, noisy]), _with_dropped(condition)
            timestep = timestep if timestep.dim() == 0 else timestep.repeat(2)
        frames = self._frames(noisy, condition)
        n_heads, n_frames = frames.shape[:2]
        ref_index = None if as_frame else self._ref_index(condition, both)
        views = Views(n_frames, self.config.attention == "3d", as_frame, references=references, ref_index=ref_index)
        times = timestep.to(noisy.device).expand(n_heads).repeat_interleave(n_frames)
        tokens = self.image_tokens(condition).repeat_interleave(n_frames, 0)
        out = self.unet(
            frames.flatten(0, 1), times, tokens, class_labels=self._poses(condition, n_frames), cross_attention_kwargs={"views": views}
        ).sample
        return out.unflatten(0, (n_heads, n_frames))[:, : noisy.shape[1]].to(given)

    @staticmethod
    def _ref_index(condition: ViewCondition, both: bool) -> Tensor | None:
        """Each head's row in the references, -1 where its picture is dropped; None where each has its own and none is dropped."""
        if condition.keep is None:
            return None
        n_heads, device = len(condition.image_latents), condition.image_latents.device
        rows = torch.arange(n_heads, device=device) % (n_heads // 2 if both else n_heads)
        return torch.where(condition.keep.to(device), rows, -1)

    def _frames(self, noisy: Tensor, condition: ViewCondition) -> Tensor:
        """[B, N (+ 1), channels, h, w]: noisy latents with their channels; the clean picture as the last frame."""
        frames = noisy if condition.channels is None else torch.cat([noisy, condition.channels.to(noisy)], 2)
        if self.config.input_mode != "frame":
            return frames
        picture = condition.image_latents.to(noisy)
        if condition.keep is not None:
            picture = picture * condition.keep[:, None, None, None].to(picture)
        slot = condition.image_channels
        if slot is None:
            slot = picture.new_zeros(len(picture), frames.shape[2] - picture.shape[1], *picture.shape[2:])
        return torch.cat([frames, torch.cat([picture, slot.to(picture)], 1)[:, None]], 1)

    def _poses(self, condition: ViewCondition, n_frames: int) -> Tensor | None:
        """[B * frames, 16]; zeros for the picture's frame, as ImageDream."""
        if self.config.condition != "pose" or condition.viewmats is None:
            return None
        poses = pose_vectors(condition.viewmats).to(self.dtype)
        padding = poses.new_zeros(len(poses), n_frames - poses.shape[1], POSE_SIZE)
        return torch.cat([poses, padding], 1).flatten(0, 1)

    def _checked(self, noisy: Tensor, condition: ViewCondition) -> ViewCondition:
        """The condition without what this model does not use."""
        c, n_extra = self.config, self.unet.config.in_channels - self.config.latent_channels
        if noisy.dim() != 5 or noisy.shape[2] != c.latent_channels:
            raise ValueError(f"noisy latents must be [B, N, {c.latent_channels}, h, w], got {list(noisy.shape)}")
        n_heads, n_views, _, height, width = noisy.shape
        if list(condition.image_latents.shape) != [n_heads, c.latent_channels, height, width]:
            want = [n_heads, c.latent_channels, height, width]
            raise ValueError(f"image_latents must be {want}, got {list(condition.image_latents.shape)}")
        if c.condition == "pose" and (condition.viewmats is None or condition.viewmats.shape[:2] != (n_heads, n_views)):
            raise ValueError(f"this model is conditioned on poses: viewmats must be [{n_heads}, {n_views}, 4, 4], got {condition.viewmats}")
        if not n_extra:
            return replace(condition, channels=None, image_channels=None)
        shape = None if condition.channels is None else list(condition.channels.shape)
        if shape != [n_heads, n_views, n_extra, height, width]:
            want = [n_heads, n_views, n_extra, height, width]
            raise ValueError(f"this model is conditioned on {c.condition}: channels must be {want}, got {shape}")
        return condition
