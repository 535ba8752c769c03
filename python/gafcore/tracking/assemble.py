"""From a solution to a Capture: one camera, the rig about the origin, pictures on white, splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import Detections
from gafcore.tracking.mask import full_size
from gafcore.tracking.matte import Matte
from gafcore.tracking.solve import Solution
from gafcore.types import Camera, Capture, Frame, RigParams

FRONTAL_DEG = 6.0
TURNED_DEG = 10.0
BACKGROUND = (1.0, 1.0, 1.0)


def assemble(
    clip: Clip,
    detections: Detections,
    rig: Rig,
    solution: Solution,
    masks: Sequence[np.ndarray | Matte],
    *,
    split: Literal["all", "frontal"] = "all",
) -> Capture:
    """A capture whose pictures are decoded and composited on white when asked for. Frames without a face are in no split.

    `masks` are mattes, or head masks uint8 of any size, with which rims keep the old background's colour.
    """
    params, camera = centred(solution, detections.width, detections.height)
    frames = tuple(
        Frame(camera, t, 0, _image(clip, t, mask), _mask(mask, camera), camera_id="0", timestep_id=f"{t:05d}")
        for t, mask in enumerate(masks)
    )
    info: dict[str, Any] = {
        "clip": clip.name,
        "focal_px": solution.focal_px,
        "focal_sigma_px": solution.focal_sigma_px,
        "missed_frames": torch.nonzero(~detections.found)[:, 0].tolist(),
        "cuts": list(detections.cuts),
        "split": split,
    }
    splits = (
        split_by_yaw(params, detections.found) if split == "frontal" else {"train": tuple(torch.nonzero(detections.found)[:, 0].tolist())}
    )
    return Capture(frames, rig, params, splits, BACKGROUND, info)


def centred(solution: Solution, width: int, height: int) -> tuple[RigParams, Camera]:
    """The rig's mean translation taken out of rig and camera: heads are about the origin and the camera looks at them along -z."""
    mean = solution.params.translation.mean(0)
    viewmat = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    viewmat[:3, 3] = viewmat[:3, :3] @ mean
    k = torch.tensor([[solution.focal_px, 0, width / 2], [0, solution.focal_px, height / 2], [0, 0, 1]])
    return replace(solution.params, translation=solution.params.translation - mean), Camera(viewmat, k, width, height)


def yaw_degrees(params: RigParams) -> Float[Tensor, "T"]:
    """How far the head is turned about the vertical, neck included; positive when the subject looks to their left (+x)."""
    ahead = (axis_angle_to_matrix(params.rotation) @ axis_angle_to_matrix(params.neck_pose))[:, :, 2]
    return torch.rad2deg(torch.atan2(ahead[:, 0], ahead[:, 2]))


def split_by_yaw(
    params: RigParams, found: Tensor, *, frontal_deg: float = FRONTAL_DEG, turned_deg: float = TURNED_DEG
) -> dict[str, tuple[int, ...]]:
    """GAF's monocular protocol: frontal frames train, turned ones test, by yaw from the clip's median. Frames between are in neither."""
    yaw = yaw_degrees(params)
    off = (yaw - yaw[found].median()).abs()
    choose = lambda condition: tuple(torch.nonzero(condition & found)[:, 0].tolist())  # noqa: E731
    return {"train": choose(off <= frontal_deg), "test": choose(off > turned_deg)}


def _image(clip: Clip, t: int, mask: np.ndarray | Matte) -> Callable[[], Float[Tensor, "H W 3"]]:
    def load() -> Tensor:
        if isinstance(mask, Matte):
            return torch.from_numpy(mask.composite(clip.image(t), BACKGROUND))
        picture = torch.from_numpy(np.array(clip.image(t))).float() / 255
        alpha = full_size(mask, picture.shape[1], picture.shape[0])[..., None]
        return picture * alpha + torch.tensor(BACKGROUND) * (1 - alpha)

    return load


def _mask(mask: np.ndarray | Matte, camera: Camera) -> Callable[[], Float[Tensor, "H W"]]:
    return lambda: full_size(mask.alpha() if isinstance(mask, Matte) else mask, camera.width, camera.height)
