"""Pictures of how the mesh lies on the face: it must be looked at, because small landmark errors do not mean that it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.mesh import rasterize
from gafcore.movies import write_frames
from gafcore.pictures import save_sheet, to_uint8
from gafcore.progress import track as progress
from gafcore.rigs.base import Rig
from gafcore.tracking.assemble import yaw_degrees
from gafcore.tracking.detections import Detections
from gafcore.types import Camera, Capture, RigParams

_MESH_SHARE = 0.55  # of the mesh over the picture
_TINT = (0.55, 0.75, 1.0)
_MAX_PX = 1280  # long side of a video's picture
_BATCH = 16  # frames posed at once
_CELL_PX = 320  # height of a sheet's pictures
_MARGIN = 1.25  # a sheet's pictures show this much more than the mesh


def shaded(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], camera: Camera
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
    """A posed mesh, lit from the camera with one shade a triangle, and where it is."""
    ids = rasterize(vertices, faces, camera).triangle_ids[0].long()
    a, b, c = (vertices @ camera.viewmat[:3, :3].T).index_select(0, faces.flatten()).unflatten(0, (-1, 3)).unbind(1)
    facing = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)[:, 2].neg()
    shade = 0.25 + 0.75 * facing.clamp(0, 1)
    inside = (ids >= 0).float()
    return (shade[ids.clamp(min=0)] * inside)[..., None] * torch.tensor(_TINT), inside


def overlay(
    picture: UInt8[np.ndarray, "H W 3"], vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], camera: Camera
) -> Float[Tensor, "H W 3"]:
    """One picture with the mesh over it."""
    image = torch.from_numpy(np.array(picture)).float() / 255
    mesh, inside = shaded(vertices, faces, camera)
    share = _MESH_SHARE * inside[..., None]
    return image * (1 - share) + mesh * share


def with_landmarks(image: Float[Tensor, "H W 3"], landmarks: Float[Tensor, "L 2"], color: Sequence[float] = (0.1, 1.0, 0.2)) -> Tensor:
    """The detected points as small squares; points that are not known or outside are left out."""
    size = max(1, round(max(image.shape[:2]) / 400))
    corner = (landmarks[torch.isfinite(landmarks).all(-1)] - (size - 1) / 2).long()
    image = image.clone()
    for dx in range(size):
        for dy in range(size):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
            image[y[inside], x[inside]] = torch.tensor(color)
    return image


def telling_frames(params: RigParams, detections: Detections, n: int = 8) -> list[int]:
    """Frames worth a look: the most turned to either side, the widest mouth, the firmest blink, then evenly spread ones."""
    found = torch.nonzero(detections.found)[:, 0]
    yaw = yaw_degrees(params)[found]
    chosen = [int(found[yaw.argmin()]), int(found[yaw.argmax()])]
    for part in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp"):
        if part in detections.score_names:
            chosen.append(int(found[detections.scores[found, detections.score_names.index(part)].argmax()]))
    chosen += found[torch.linspace(0, len(found) - 1, n).round().long()].tolist()
    return sorted(list(dict.fromkeys(chosen))[:n])


def write_overlay_sheet(path: str | Path, clip: Clip, rig: Rig, capture: Capture, detections: Detections, n: int = 8) -> None:
    """Rows of picture, picture with mesh, mesh with the detected landmarks, and what is left after masking; cut to the head."""
    chosen = telling_frames(capture.params, detections, n)
    boxes = head_boxes(rig, capture, chosen)
    rows: list[list[Tensor]] = [[], [], [], []]
    posed = rig.vertices(capture.params[chosen])
    for t, vertices, (left, top, right, bottom) in zip(chosen, posed, boxes, strict=True):
        frame, picture = capture.frames[t], clip.image(t)
        image = torch.from_numpy(np.array(picture)).float() / 255
        mesh = with_landmarks(shaded(vertices, rig.faces, frame.camera)[0], detections.landmarks[t])
        for row, cell in zip(rows, (image, overlay(picture, vertices, rig.faces, frame.camera), mesh, frame.image()), strict=True):
            row.append(cell[top:bottom, left:right])
    save_sheet(path, rows, ["picture", "mesh", "landmarks", "head"], [f"frame {t}" for t in chosen], cell_px=_CELL_PX)


def head_boxes(rig: Rig, capture: Capture, frames: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """A box (left, top, right, bottom) about the head in each frame, all of one size, inside the picture."""
    camera = capture.frames[0].camera
    points = rig.vertices(capture.params[list(frames)])
    seen = (points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]) @ camera.K.T
    pixels = seen[..., :2] / seen[..., 2:].clamp(min=1e-3)
    limit = torch.tensor([camera.width, camera.height])
    low, high = pixels.amin(1).clamp(min=0).minimum(limit), pixels.amax(1).clamp(min=0).minimum(limit)
    size = (_MARGIN * (high - low).amax(0)).ceil().long().clamp(min=1).minimum(limit)
    corner = ((low + high - size) / 2).round().long().clamp(min=0).minimum(limit - size)
    return [(x, y, x + int(size[0]), y + int(size[1])) for x, y in corner.tolist()]


def write_overlay_video(path: str | Path, clip: Clip, rig: Rig, capture: Capture, fps: float) -> None:
    """The clip beside the clip with the mesh over it."""
    write_frames(path, _video_frames(clip, rig, capture), fps=fps)


def _video_frames(clip: Clip, rig: Rig, capture: Capture) -> Iterator[np.ndarray]:
    step = max(1, -(-max(clip.width, clip.height) // _MAX_PX))
    for t in progress(range(len(capture.frames)), "overlay"):
        if t % _BATCH == 0:  # the identity is blended once a batch
            posed = rig.vertices(capture.params[t : t + _BATCH])
        picture = clip.image(t)
        drawn = to_uint8(overlay(picture, posed[t % _BATCH], rig.faces, capture.frames[t].camera))
        yield np.concatenate([picture, drawn], 1)[::step, ::step]
