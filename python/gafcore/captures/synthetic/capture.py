"""Synthetic captures: a made-up person filmed by sixteen cameras, with everything about them known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.captures.cache import DEFAULT_BYTES, ImageCache
from gafcore.captures.splits import TRAIN, gaf_split, thin
from gafcore.captures.synthetic.atlas import smooth_over_mesh
from gafcore.captures.synthetic.cameras import FRONT_CAMERA, nersemble_arc
from gafcore.captures.synthetic.hair import grow_hair
from gafcore.captures.synthetic.lighting import N_DIRECTIONS, ambient_occlusion, random_light
from gafcore.captures.synthetic.look import HAIR_STYLES, Look, random_look
from gafcore.captures.synthetic.motion import random_identity, random_motion
from gafcore.captures.synthetic.paint import paint
from gafcore.captures.synthetic.render import Model, pose_hair, render
from gafcore.errors import InputError
from gafcore.mesh import vertex_normals
from gafcore.rigs import load_rig
from gafcore.rigs.base import Rig
from gafcore.types import Camera, Capture, Frame, RigParams

_TRAIN_FRACTION = 0.8
# Parts that are in shadow on the neutral face but not when the mouth opens: they never get darker than this.
_LEAST_LIGHT = {"mouth": 0.30, "teeth": 0.55, "left_eye": 0.75, "right_eye": 0.75}


@dataclass(frozen=True)
class SynthConfig:
    """What to make. The same settings give the same bits.

    Attributes:
        rig: Rig description, as `gafcore.rigs.load_rig` takes it.
        seed: Chooses identity, look, light and motion.
        size: Width and height of the pictures, pixels.
        n_timesteps: Length of the performance.
        n_cameras: Cameras on the arc; GAF's split needs the sixteen of NeRSemble.
        fps: Timesteps a second.
        samples: Sample points along each side of a pixel.
        page_px: Side of the texture pages, texels; 0 takes twice the size of the pictures, 1024 at most.
        hair: "random", "bald", "buzz", "short", "curly", "bob", "bun", or "long", which "random" never draws.
        eval_timesteps: Keep about this many timesteps, evenly spaced, in each held-out split; 0 keeps all.
    """

    rig: str = "procedural"
    seed: int = 0
    size: int = 256
    n_timesteps: int = 60
    n_cameras: int = 16
    fps: float = 24.0
    samples: int = 3
    page_px: int = 0
    hair: str = "random"
    eval_timesteps: int = 0

    def __post_init__(self) -> None:
        limits = {"size": (1, 4096), "n_timesteps": (1, 100_000), "n_cameras": (1, 100), "samples": (1, 16), "page_px": (0, 8192)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be in {low}..{high}, got {value}")
        if not 0 < self.fps < float("inf") or self.eval_timesteps < 0:
            raise InputError(f"fps must be > 0 and finite, and eval_timesteps >= 0, got {self.fps} and {self.eval_timesteps}")
        if self.hair not in (*HAIR_STYLES, "random"):
            raise InputError(f"hair must be 'random' or one of {', '.join(HAIR_STYLES)}, got {self.hair!r}")


@dataclass(frozen=True)
class SyntheticCapture:
    """A capture with its ground truth. `capture` has the frames that a split uses; `views[t][c]` is any timestep from any camera."""

    capture: Capture
    views: tuple[tuple[Frame, ...], ...]
    vertices: Float[Tensor, "T V 3"]  # of the rig, in world space, metres
    look: Look
    model: Model

    def hair_vertices(self, timestep: int) -> Float[Tensor, "H 3"]:
        """The hair at a timestep; its triangles are `model.hair.faces`."""
        return pose_hair(self.model, self.vertices[timestep])[0]

    @property
    def texture(self) -> Float[Tensor, "H W 3"]:
        """The painted skin, eyes and teeth, linear RGB."""
        return self.model.texture.maps[:3].permute(1, 2, 0)


def make(config: SynthConfig = SynthConfig(), *, rig: Rig | None = None, cache_bytes: int = DEFAULT_BYTES) -> SyntheticCapture:
    """A person by seed, filmed from the front arc, with GAF's split. Pictures are rendered when a frame is asked for them.

    Args:
        config: Settings.
        rig: Use this rig instead of loading the one that `config` names.
        cache_bytes: Limit on rendered pictures held in memory.
    """
    rig = rig if rig is not None else load_rig(config.rig)
    shape = random_identity(rig, config.seed)
    params = random_motion(rig, shape, config.seed, config.n_timesteps, config.fps)
    cameras = nersemble_arc(config.n_cameras, target=_head_center(rig, shape), width=config.size, height=config.size)
    made = from_motion(
        rig,
        params,
        cameras,
        seed=config.seed,
        hair=config.hair,
        samples=config.samples,
        page_px=config.page_px,
        cache_bytes=cache_bytes,
    )
    splits = _splits(made.capture.frames, config)
    used = sorted({i for ids in splits.values() for i in ids})
    number = {old: new for new, old in enumerate(used)}
    capture = Capture(
        frames=tuple(made.capture.frames[i] for i in used),
        rig=rig,
        params=params,
        splits={name: tuple(number[i] for i in ids) for name, ids in splits.items()},
        info={"source": "synthetic", "seed": config.seed, "hair": made.look.hair_style, "fps": config.fps},
    )
    return replace(made, capture=capture)


def from_motion(
    rig: Rig,
    params: RigParams,
    cameras: Sequence[Camera],
    *,
    seed: int = 0,
    hair: str = "random",
    samples: int = 3,
    page_px: int = 0,
    cache_bytes: int = DEFAULT_BYTES,
) -> SyntheticCapture:
    """A person made up by `seed`, with the identity and motion of `params`, seen by fixed cameras. All frames are in "train".

    Frames run through the cameras of a timestep before the next timestep: frame `t * len(cameras) + c`.
    """
    look = random_look(seed, hair)
    model = make_model(rig, params, look, seed, page_px or min(1024, 2 * max(c.height for c in cameras)))
    # One timestep at a time: MKL may sum a product of several rows in another order on another number of threads (seen on AMD processors).
    vertices = torch.cat([rig.vertices(params[t]) for t in range(len(params))])
    cache = ImageCache(cache_bytes)
    views = tuple(
        tuple(_frame(_Shot(model, vertices[t], camera, samples, cache, (t, c)), t, c) for c, camera in enumerate(cameras))
        for t in range(len(params))
    )
    frames = tuple(frame for row in views for frame in row)
    capture = Capture(frames, rig, params, {TRAIN: tuple(range(len(frames)))}, info={"source": "synthetic", "seed": seed})
    return SyntheticCapture(capture, views, vertices, look, model)


@dataclass(frozen=True)
class _Shot:
    """One timestep from one camera. Colour and coverage are rendered together, at 8 bits, once."""

    model: Model
    vertices: Float[Tensor, "V 3"]
    camera: Camera
    samples: int
    cache: ImageCache
    key: tuple[int, int]

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 4]."""
        return self.cache.get(self.key, self._render)

    def image(self) -> Float[Tensor, "H W 3"]:
        return torch.from_numpy(self.pixels())[..., :3].float() / 255

    def mask(self) -> Float[Tensor, "H W"]:
        return torch.from_numpy(self.pixels())[..., 3].float() / 255

    def _render(self) -> np.ndarray:
        with torch.no_grad():
            rgba = render(self.model, self.vertices, self.camera, samples=self.samples)
        return (rgba.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def _splits(frames: Sequence[Frame], config: SynthConfig) -> dict[str, tuple[int, ...]]:
    n = config.n_timesteps
    n_train = max(1, int(_TRAIN_FRACTION * n))
    splits = gaf_split(frames, n, train_camera=min(FRONT_CAMERA, config.n_cameras // 2), train_fraction=_TRAIN_FRACTION)
    if not config.eval_timesteps:
        return splits
    return thin(splits, frames, {*_spread(0, n_train, config.eval_timesteps), *_spread(n_train, n, config.eval_timesteps)})


def _frame(shot: _Shot, timestep: int, camera_index: int) -> Frame:
    return Frame(
        camera=shot.camera,
        timestep=timestep,
        camera_index=camera_index,
        image=shot.image,
        mask=shot.mask,
        camera_id=f"{camera_index:02d}",
        timestep_id=f"frame_{timestep:05d}",
    )


@torch.no_grad()
def make_model(rig: Rig, params: RigParams, look: Look, seed: int, page_px: int, *, detail: float = 1.0, hair_length: float = 1.0) -> Model:
    """A person who can be rendered in any pose.

    Args:
        rig: The mesh.
        params: Identity and static offset; the pose is not read.
        look: Colours and hair style.
        seed: Chooses texture, light and locks.
        page_px: Side of the texture pages.
        detail: Share of the locks, and of the directions from which shadows are gathered: less is faster, and shows in large pictures.
        hair_length: Relative to the style's.
    """
    still = replace(rig.neutral(), shape=params.shape, static_offset=params.static_offset)
    neutral = rig.vertices(still)[0]
    hair = grow_hair(rig, neutral, look, seed, detail=detail, length=hair_length)
    everything = torch.cat([neutral, hair.vertices])
    faces = torch.cat([rig.faces, hair.faces + rig.n_vertices])
    normals = torch.cat([vertex_normals(neutral, rig.faces), hair.normals])
    head, locks = ambient_occlusion(everything, normals, faces, math.ceil(detail * N_DIRECTIONS)).split(
        [rig.n_vertices, len(hair.vertices)]
    )
    head = smooth_over_mesh(rig.faces, head, 3)  # the depth maps' pixels would show as blotches
    for region, least in _LEAST_LIGHT.items():
        if region in rig.regions:
            head = torch.where(rig.regions[region], head.clamp_min(least), head)
    scalp = rig.regions["scalp"].nonzero()[:, 0]
    texture = paint(rig, look, seed, page_px)
    return Model(rig, neutral, texture, random_light(seed), hair, _soften(head, 0.12), _soften(locks, 0.25), scalp)


def _soften(occlusion: Tensor, least: float) -> Tensor:
    """Light that bounces about reaches even what sees no sky."""
    return least + (1 - least) * occlusion


@torch.no_grad()
def _head_center(rig: Rig, shape: Float[Tensor, "S"]) -> list[float]:
    """Halfway between chin and crown, in the middle of the head's depth."""
    vertices = rig.vertices(replace(rig.neutral(), shape=shape))[0]
    head = vertices[rig.regions["scalp"] | rig.regions["face"]]
    return ((head.amin(0) + head.amax(0)) / 2).tolist()


def _spread(start: int, stop: int, n: int) -> list[int]:
    """`n` numbers evenly spread over start..stop-1, in the middle of their stretches."""
    return sorted({start + int((stop - start) * (k + 0.5) / n) for k in range(n)}) if stop > start else []
