"""The head's mask: the person where the detector sees one, without the torso below the rig's neck and without other people. Hair stays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.tracking.detections import Detections
from gafcore.tracking.points import project
from gafcore.tracking.solve import Solution
from gafcore.tracking.threads import one_thread, side_by_side

_SOFT = 0.02  # half width of the soft edge below the neck, in face sizes
_COMPONENT = 0.5  # person probability that joins pixels to one component
_LABEL_PX = 128  # components are told apart at this size
_STRAND = 0.02  # of the face's area: a smaller component is nobody else ...
_NEAR = 0.15  # ... but hair that the network lost sight of, if it is so near to the head, in face sizes
_BANDS = 24  # heights at which the neck's width is taken
_SHOULDERS = 1.3  # a neck this many times as wide as at its narrowest has become shoulders
_NECK_TILT_RAD = 0.44  # the base of a neck slopes down to the collarbones


@dataclass(frozen=True)
class HeadLimits:
    """Between what a frame's head mask stays whatever the person's probability is; uint8 [h, w] at the size of `detections.person`.

    `floor` is the face, which is head even where no person was seen. `ceiling` is 0 below the neck and on other people.
    """

    floor: np.ndarray
    ceiling: np.ndarray

    def apply(self, person: np.ndarray) -> np.ndarray:
        """The head mask, uint8 [h, w], of a person mask uint8 [h, w]."""
        within = (person.astype(np.uint16) * self.ceiling + 127) // 255
        return np.maximum(within.astype(np.uint8), self.floor)


def head_masks(detections: Detections, rig: Rig, solution: Solution, frames: list[int] | None = None) -> list[np.ndarray]:
    """One soft mask a frame (of all, or of `frames`), uint8 at the size of `detections.person`: 255 is head."""
    frames = list(range(len(detections))) if frames is None else frames
    limits = head_limits(detections, rig, solution, frames)
    return [limit.apply(detections.person[t].numpy()) for t, limit in zip(frames, limits, strict=True)]


def head_limits(detections: Detections, rig: Rig, solution: Solution, frames: list[int] | None = None) -> list[HeadLimits]:
    """What rig and landmarks say about the head mask of every frame (of all, or of `frames`), apart from the person's probability."""
    frames, ring = list(range(len(detections))) if frames is None else frames, neck_ring(rig)
    centre = (detections.width / 2, detections.height / 2)
    scale = np.array([detections.person.shape[2] / detections.width, detections.person.shape[1] / detections.height])
    with one_thread():
        pixels = project(rig.vertices(solution.params[frames], ring), torch.tensor(solution.focal_px), centre).numpy()

        def limits(i: int) -> HeadLimits:
            t = frames[i]
            outline = face_outline(detections.landmarks[t].numpy() * scale) if bool(detections.found[t]) else None
            return frame_limits(detections.person[t].numpy(), pixels[i] * scale, outline)

        return side_by_side(limits, range(len(frames)))


def neck_ring(rig: Rig) -> Int[Tensor, "M"]:
    """Vertices about the base of the neck, lower in front than behind: where it widens to the shoulders, else its lower end."""
    neck = torch.nonzero(rig.regions["neck"])[:, 0] if "neck" in rig.regions else torch.arange(rig.n_vertices)
    points = rig.template[neck].double()
    bands = torch.linspace(float(points[:, 1].min()), float(points[:, 1].max()), _BANDS + 1).double()
    band = torch.bucketize(points[:, 1].contiguous(), bands[1:-1])
    width = torch.zeros(_BANDS).double().scatter_reduce(0, band, points[:, 0].abs(), "amax")
    narrowest = int(torch.where(width > 0, width, torch.inf).argmin())
    wide = torch.nonzero(width[:narrowest] > _SHOULDERS * width[narrowest])[:, 0]
    base = float(bands[int(wide.max()) + 1]) if len(wide) else float(bands[0] + bands[1]) / 2
    at_base = (points[:, 1] - base).abs() < float(bands[1] - bands[0])
    middle = points[at_base, 2].mean() if bool(at_base.any()) else points[:, 2].mean()
    above = points[:, 1] - base + math.tan(_NECK_TILT_RAD) * (points[:, 2] - middle)
    return neck[above.abs() <= max(float(bands[1] - bands[0]) / 2, float(above.abs().sort().values[min(8, len(above) - 1)]))]


def face_outline(landmarks: Float[np.ndarray, "478 2"]) -> Float[np.ndarray, "K 2"]:
    """The convex outline of the face's landmarks."""
    return landmarks[ConvexHull(landmarks).vertices]


def frame_limits(person: np.ndarray, ring: np.ndarray, outline: np.ndarray | None) -> HeadLimits:
    """Limits of one frame. `person` uint8 [h, w]; `ring` [M, 2] and `outline` [K, 2] in its pixels; without an outline everybody stays."""
    height, width = person.shape
    size = max(np.ptp(ring[:, 0]), 1.0)
    face = np.zeros((height, width), dtype=bool)
    if outline is not None:
        filled = Image.new("L", (width, height))
        ImageDraw.Draw(filled).polygon([tuple(p) for p in outline.tolist()], fill=255)
        face = np.asarray(filled) > 0
        size = float(np.sqrt(np.prod(np.ptp(outline, axis=0))))
    cut = _lower_edge(ring, width)
    below = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - cut) / max(_SOFT * size, 0.5)
    ceiling = np.clip(0.5 - 0.5 * below, 0, 1)
    if outline is not None:  # after the cut: people stand shoulder to shoulder
        ceiling *= _around(np.maximum(person.astype(np.float32) / 255, face) * ceiling, face, size)
    ceiling = (ceiling * 255 + 0.5).astype(np.uint8)
    return HeadLimits(np.where(face, ceiling, np.uint8(0)), ceiling)


def _lower_edge(ring: np.ndarray, width: int) -> np.ndarray:
    """For every column the lowest point of the ring's outline; beside the ring the height of its nearest end."""
    hull = ring[ConvexHull(ring).vertices]  # counter-clockwise in (x, y): with y down the lower edge runs from left to right backwards
    left, right = hull[hull[:, 0].argmin()], hull[hull[:, 0].argmax()]
    chord = left[1] + (hull[:, 0] - left[0]) * (right[1] - left[1]) / max(right[0] - left[0], 1e-6)
    lower = hull[hull[:, 1] >= chord - 1e-6]
    lower = lower[lower[:, 0].argsort()]
    return np.interp(np.arange(width) + 0.5, lower[:, 0], lower[:, 1]).astype(np.float32)


def _around(mask: np.ndarray, face: np.ndarray, size: float) -> np.ndarray:
    """1 on the part of the mask that is connected to the face, and a little beyond its edge; 0 on other people. `size` is the face's."""
    step = max(1, max(mask.shape) // _LABEL_PX)
    small, seed, size = mask[::step, ::step] > _COMPONENT, face[::step, ::step], size / step
    labels, n = ndimage.label(small)
    keep = np.zeros(n + 1, dtype=bool)
    keep[labels[seed & small]] = True
    if keep.any() and not keep[1:].all():
        near = ndimage.maximum_filter(keep[labels], 2 * max(1, round(_NEAR * size)) + 1)
        strand = np.bincount(labels.ravel(), minlength=n + 1) < _STRAND * size**2
        strand[0] = False
        keep[labels[near & strand[labels]]] = True
    if n <= 1 or keep[1:].all() or not keep.any():
        return np.ones_like(mask)
    # Soft edges reach further than the component; what is nearer to the head than to anybody else is the head's.
    nearest = ndimage.distance_transform_edt(~small, return_distances=False, return_indices=True)
    ours = keep[labels][tuple(nearest)]
    return ours.repeat(step, 0).repeat(step, 1)[: mask.shape[0], : mask.shape[1]].astype(np.float32)


def full_size(mask: np.ndarray, width: int, height: int) -> Float[Tensor, "H W"]:
    """A mask at the size of the picture, 0..1."""
    if mask.shape != (height, width):
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(mask.astype(np.float32) / 255)
