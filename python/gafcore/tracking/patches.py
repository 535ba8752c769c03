"""Small grey pictures of the face, of one size and band-passed: what the refinement of poses looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor

_FACE_PX = 150  # faces are scaled to this size: finer pictures cost more and gain nothing
_COARSE_PX = 4.0  # structure above this standard deviation, at that size, goes: light changes as the head turns
_MARGIN = 0.15  # of the face's size, around it


@dataclass(frozen=True)
class Patch:
    """A frame's face: `image` [h, w], about 0; its pixel (u, v) is the frame's (u / scale + x0, v / scale + y0)."""

    image: Float[Tensor, "h w"]
    x0: float
    y0: float
    scale: float


@dataclass(frozen=True)
class Patches:
    """The patches of B frames, padded to one size: `stack` holds the picture and its slopes along x and y."""

    stack: Float[Tensor, "B 3 h w"]
    origin: Float[Tensor, "B 1 2"]
    scale: Float[Tensor, "B 1 1"]

    def sample(self, pixels: Float[Tensor, "B U 2"], channels: int = 3) -> Float[Tensor, "B C U"]:
        """The first `channels` of the stack at the frames' pixels: bilinear, 0 outside; pixel centres at +0.5."""
        size = pixels.new_tensor([self.stack.shape[3], self.stack.shape[2]])
        grid = (pixels - self.origin) * (2 * self.scale / size) - 1
        stack = self.stack[:, :channels]
        return torch.nn.functional.grid_sample(stack, grid[:, None], mode="bilinear", padding_mode="zeros", align_corners=False)[:, :, 0]


def cut_patch(picture: np.ndarray, landmarks: Float[np.ndarray, "478 2"]) -> Patch:
    """The face's surroundings in `picture` [H, W, 3] uint8, without the coarsest structure. Grey: colour adds work and no accuracy."""
    height, width = picture.shape[:2]
    low, high = landmarks.min(0), landmarks.max(0)
    margin = _MARGIN * (high - low)
    x0, y0 = np.floor(np.clip(low - margin, 0, (width - 2, height - 2))).astype(int)
    x1, y1 = np.ceil(np.clip(high + margin, (x0 + 2, y0 + 2), (width, height))).astype(int)
    scale = min(1.0, _FACE_PX / max(1.0, float(np.sqrt(np.prod(high - low)))))
    size = (max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale)))
    grey = Image.fromarray(np.ascontiguousarray(picture[y0:y1, x0:x1])).convert("L").resize(size, Image.Resampling.HAMMING)
    band = np.asarray(grey, np.float32) - np.asarray(grey.filter(ImageFilter.GaussianBlur(_COARSE_PX)), np.float32)
    return Patch(torch.from_numpy(band / 255), float(x0), float(y0), float(size[0] / (x1 - x0)))


def together(patches: list[Patch]) -> Patches:
    """Central differences are zero at a patch' border and in its padding: nothing pulls there."""
    height, width = (max(p.image.shape[i] for p in patches) for i in (0, 1))
    stack = torch.zeros(len(patches), 3, height, width)
    for into, patch in zip(stack, patches, strict=True):
        image, (h, w) = patch.image, patch.image.shape
        into[0, :h, :w] = image
        torch.sub(image[:, 2:], image[:, :-2], out=into[1, :h, 1 : w - 1])
        torch.sub(image[2:], image[:-2], out=into[2, 1 : h - 1, :w])
    stack[:, 1:] /= 2
    origin = torch.tensor([[[p.x0, p.y0]] for p in patches])
    return Patches(stack, origin, torch.tensor([[[p.scale]] for p in patches]))
