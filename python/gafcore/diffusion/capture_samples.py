"""Training samples from captures filmed by several cameras: synthetic ones, and NeRSemble's in VHAP's layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.cameras import camera_position
from gafcore.diffusion.randomness import generator
from gafcore.diffusion.sample import ViewSample
from gafcore.errors import InputError
from gafcore.mesh import normal_map
from gafcore.types import Camera, Capture, Frame

_MARGIN = 1.2  # side of the crop over the rig's larger extent in the picture: room for hair, which no rig has


def square_crop(camera: Camera, points: Float[Tensor, "V 3"], size: int) -> tuple[Camera, tuple[float, float, float]]:
    """The square about the head, as a camera of `size` x `size`, and its place (left, top, side) in the picture, pixels.

    GAF's pictures are 802 x 550, a latent model's are square. The side follows the head, so that heads have one size in training whatever
    the distance; the camera follows, so that normal maps fit to the pixel.
    """
    seen = points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixels = (seen @ camera.K.T)[:, :2] / seen[:, 2:].clamp(min=1e-6)
    low, high = pixels.amin(0), pixels.amax(0)
    side = float(_MARGIN * (high - low).max())
    left, top = ((low + high) / 2 - side / 2).tolist()
    K = camera.K.clone()
    K[0, 2] -= left
    K[1, 2] -= top
    K[:2] *= size / side
    return replace(camera, K=K, width=size, height=size), (left, top, side)


def crop_image(image: Float[Tensor, "H W C"], place: tuple[float, float, float], size: int, outside: Float[Tensor, "C"]) -> Tensor:
    """The square of a picture, [size, size, C]; `outside` where it reaches beyond. Pixels are averaged where the square shrinks."""
    left, top, side = place
    height, width = image.shape[:2]
    fine = max(1, math.ceil(side / size))  # sample points along each side of a pixel
    steps = (torch.arange(size * fine) + 0.5) * side / (size * fine)
    x, y = 2 * (left + steps) / width - 1, 2 * (top + steps) / height - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    shifted = (image - outside).permute(2, 0, 1)[None]
    out = torch.nn.functional.grid_sample(shifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.nn.functional.avg_pool2d(out, fine)[0].permute(1, 2, 0) + outside


@dataclass(frozen=True)
class CaptureSamples:
    """Sample i: a timestep, an input camera among the frontal ones and N target cameras, chosen by `seed` and i.

    Attributes:
        captures: Several people, each seen by several cameras.
        size: Width and height of the pictures, pixels.
        n_views: Targets N.
        per_capture: Samples of each capture.
        seed: Chooses.
        front_rad: An input camera is at most this far from the head's front, where a capture has such cameras.
        carry: `carry(rgba, camera, target cameras, vertices, faces)` gives `fill`, `visibility` and `mask` of the input picture in the
            targets, for models conditioned on it; None leaves it out.
    """

    captures: Sequence[Capture]
    size: int = 256
    n_views: int = 4
    per_capture: int = 64
    seed: int = 0
    front_rad: float = math.radians(40)
    carry: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not len(self.captures):
            raise InputError("no capture to take samples from")

    def __len__(self) -> int:
        return len(self.captures) * self.per_capture

    def __getitem__(self, index: int) -> ViewSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = index // self.per_capture
        capture = self.captures[number]
        g = generator(self.seed, index)
        by_timestep = _by_timestep(capture)
        moments = [frames for frames in by_timestep.values() if len(frames) > self.n_views]
        if not moments:
            most = max(map(len, by_timestep.values()))
            raise InputError(f"capture {number}: needs timesteps seen by more than {self.n_views} cameras, has at most {most}")
        frames = moments[int(torch.randint(len(moments), (), generator=g))]
        vertices = capture.rig.vertices(capture.params[frames[0].timestep])[0]
        front = [f for f in frames if self._off_front(capture, f) <= self.front_rad] or [
            min(frames, key=lambda f: self._off_front(capture, f))
        ]
        chosen = front[int(torch.randint(len(front), (), generator=g))]
        others = [f for f in frames if f is not chosen]
        targets = [others[i] for i in torch.randperm(len(others), generator=g)[: self.n_views].tolist()]
        return self._sample(capture, chosen, targets, vertices, f"{number}/{chosen.timestep_id or chosen.timestep}/{chosen.camera_id}")

    def _off_front(self, capture: Capture, frame: Frame) -> float:
        """Angle between the camera and the way the skull looks, rotation of the whole head included."""
        params = capture.params[frame.timestep]
        forward = _rotate(params.rotation[0], torch.tensor([0.0, 0.0, 1.0]))
        towards = torch.nn.functional.normalize(camera_position(frame.camera) - params.translation[0], dim=0)
        return math.acos(max(-1.0, min(1.0, float(forward @ towards))))

    def _sample(self, capture: Capture, chosen: Frame, targets: list[Frame], vertices: Tensor, key: str) -> ViewSample:
        shot = [self._shot(capture, frame, vertices) for frame in (chosen, *targets)]
        cameras = [camera for camera, _, _ in shot]
        normals = normal_map(vertices, capture.rig.faces, cameras)
        pictures, masks = (torch.stack(x) for x in zip(*((p, m) for _, p, m in shot), strict=True))
        carried = self._carried(pictures[0], masks[0], cameras, vertices, capture)
        return ViewSample(
            **carried,
            image=pictures[0],
            image_normals=normals[0],
            targets=pictures[1:],
            masks=masks[1:],
            normals=normals[1:],
            image_viewmat=cameras[0].viewmat,
            image_K=cameras[0].K,
            viewmats=torch.stack([c.viewmat for c in cameras[1:]]),
            Ks=torch.stack([c.K for c in cameras[1:]]),
            timestep=chosen.timestep,
            key=key,
        )

    def _carried(self, picture: Tensor, mask: Tensor, cameras: list[Camera], vertices: Tensor, capture: Capture) -> dict[str, Tensor]:
        """The input's colours in the targets, over the capture's background."""
        if self.carry is None:
            return {}
        background = torch.tensor(capture.background)
        premultiplied = picture - background * (1 - mask[..., None])
        rgba = torch.cat([premultiplied.clamp(0, 1), mask[..., None]], -1)
        made = self.carry(rgba, cameras[0], cameras[1:], vertices, capture.rig.faces)
        return {"warp": made.fill + background * (1 - made.mask[..., None]), "visibility": made.visibility}

    def _shot(self, capture: Capture, frame: Frame, vertices: Tensor) -> tuple[Camera, Tensor, Tensor]:
        """The cropped camera, picture and mask; the picture keeps its own background where there is no mask."""
        camera, place = square_crop(frame.camera, vertices, self.size)
        background = torch.tensor(capture.background)
        image = frame.image()
        mask = torch.ones(image.shape[:2]) if frame.mask is None else frame.mask()
        image = image * mask[..., None] + background * (1 - mask[..., None])
        cropped = crop_image(image, place, self.size, background).clamp(0, 1)
        return camera, cropped, crop_image(mask[..., None], place, self.size, torch.zeros(1))[..., 0].clamp(0, 1)


def _by_timestep(capture: Capture) -> dict[int, list[Frame]]:
    moments: dict[int, list[Frame]] = {}
    for frame in capture.frames:
        moments.setdefault(frame.timestep, []).append(frame)
    return moments


def _rotate(axis_angle: Float[Tensor, "3"], v: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """Rodrigues' formula."""
    angle = axis_angle.norm()
    if float(angle) < 1e-8:
        return v
    axis = axis_angle / angle
    return v * angle.cos() + torch.linalg.cross(axis, v) * angle.sin() + axis * (axis @ v) * (1 - angle.cos())
