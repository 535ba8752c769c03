"""How an avatar looks from the sides that no training camera saw: the figures of a study of priors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars import RiggedAvatar, render
from gafcore.avatars.frames import checked_image, checked_mask
from gafcore.cameras import camera_position
from gafcore.evaluation.metrics import Perceptual, compare, mean_values
from gafcore.types import Camera, Capture, Frame

FAR_DEG = 45.0
_SHOWN = 6


@dataclass(frozen=True)
class SideScores:
    """Means over frames. `structure` is the gradient-structure error on the head: 0 is perfect, a flat picture has 1."""

    train: dict[str, float]
    novel: dict[str, float]
    far: dict[str, float]  # the novel views beyond FAR_DEG of azimuth; none where no camera is there
    expression: dict[str, float] = field(default_factory=dict)  # none where the capture has no such frames


@torch.no_grad()
def side_scores(
    avatar: RiggedAvatar,
    capture: Capture,
    *,
    train: str = "train",
    novel: str = "novel_view",
    expression: str = "novel_expression",
    perceptual: Perceptual | None = None,
) -> SideScores:
    """Compare on the frames of three splits, the last of which may be absent; with `perceptual` also by LPIPS, on the avatar's device."""
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {train: [], novel: [], expression: []}
    background = avatar.means.new_tensor(capture.background)
    for split, row in rows.items():
        for number in capture.splits.get(split, ()) if split == expression else capture.splits[split]:
            frame = capture.frames[number]
            image = render(avatar, [frame.camera], avatar.params[frame.timestep], background).image[0].clamp(0, 1)
            truth, mask = checked_image(frame).to(image), checked_mask(frame)
            mask = None if mask is None else mask.to(image)
            values = compare(image, truth, mask, perceptual) | {"structure": structure_error(image, truth, mask)}
            row.append((azimuth_deg(frame.camera), values))
    far = [values for azimuth, values in rows[novel] if abs(azimuth) > FAR_DEG]
    means = {split: mean_values([values for _, values in row]) for split, row in rows.items()}
    return SideScores(means[train], means[novel], mean_values(far), means[expression])


def frames_around(capture: Capture, novel: str = "novel_view") -> list[Frame]:
    """Frames of one moment, from one side to the other, to be shown beside each other."""
    frames = [capture.frames[i] for i in capture.splits[novel]]
    moment = frames[len(frames) // 2].timestep
    row = sorted((f for f in frames if f.timestep == moment), key=lambda f: azimuth_deg(f.camera))
    places = torch.linspace(0, len(row) - 1, min(_SHOWN, len(row))).round().long().tolist()
    return [row[i] for i in dict.fromkeys(places)]


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
