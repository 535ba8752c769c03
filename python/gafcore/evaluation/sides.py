"""How an avatar looks from the sides that no training camera saw: the figures of a study of priors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars import RiggedAvatar, render
from gafcore.avatars.frames import checked_image, checked_mask
from gafcore.cameras import camera_position
from gafcore.evaluation.metrics import compare, mean_values
from gafcore.types import Camera, Capture

FAR_DEG = 45.0


@dataclass(frozen=True)
class SideScores:
    """Means over frames. `structure` is the gradient-structure error on the head: 0 is perfect, a flat picture has 1."""

    train: dict[str, float]
    novel: dict[str, float]
    far: dict[str, float]  # the novel views beyond FAR_DEG of azimuth; none where no camera is there


@torch.no_grad()
def side_scores(avatar: RiggedAvatar, capture: Capture, *, train: str = "train", novel: str = "novel_view") -> SideScores:
    """Compare on the frames of two splits."""
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {train: [], novel: []}
    background = avatar.means.new_tensor(capture.background)
    for split, row in rows.items():
        for number in capture.splits[split]:
            frame = capture.frames[number]
            image = render(avatar, [frame.camera], avatar.params[frame.timestep], background).image[0].clamp(0, 1)
            truth, mask = checked_image(frame).to(image), checked_mask(frame)
            mask = None if mask is None else mask.to(image)
            values = compare(image, truth, mask) | {"structure": structure_error(image, truth, mask)}
            row.append((azimuth_deg(frame.camera), values))
    far = [values for azimuth, values in rows[novel] if abs(azimuth) > FAR_DEG]
    return SideScores(mean_values([v for _, v in rows[train]]), mean_values([v for _, v in rows[novel]]), mean_values(far))


def azimuth_deg(camera: Camera) -> float:
    """Of the camera's centre about the world's vertical; 0 in front of the head (+z), positive towards +x."""
    x, _, z = camera_position(camera).tolist()
    return math.degrees(math.atan2(x, z))


def structure_error(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], mask: Float[Tensor, "H W"] | None) -> float:
    """Sum of the differences of neighbouring pixels' differences, relative to the truth's own: blur and wrong edges both raise it."""
    head = torch.ones_like(truth[..., 0]) if mask is None else (mask > 0.5).to(truth.dtype)
    across, down = head[:, 1:] * head[:, :-1], head[1:] * head[:-1]

    def energy(x: Tensor) -> float:
        return float((x.diff(dim=1).abs().mean(-1) * across).sum() + (x.diff(dim=0).abs().mean(-1) * down).sum())

    return energy(image - truth) / max(energy(truth), 1e-6)
