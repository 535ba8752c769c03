"""The head's mask: the person where the detector sees one, without the torso below the rig's neck and without other people. Hair stays."""

from __future__ import annotations

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

_SOFT = 0.02  # half width of the soft edge below the neck, in face sizes
_COMPONENT = 0.5  # person probability that joins pixels to one component
_LABEL_PX = 128  # components are told apart at this size


def head_masks(detections: Detections, rig: Rig, solution: Solution) -> list[np.ndarray]:
    """One soft mask a frame, uint8 at the size of `detections.person`: 255 is head."""
    ring = neck_ring(rig)
    points = rig.vertices(solution.params, ring)
    centre = (detections.width / 2, detections.height / 2)
    pixels = project(points, torch.tensor(solution.focal_px), centre).numpy()
    scale = np.array([detections.person.shape[2] / detections.width, detections.person.shape[1] / detections.height])
    masks = []
    for t in range(len(detections)):
        outline = face_outline(detections.landmarks[t].numpy() * scale) if bool(detections.found[t]) else None
        masks.append(head_mask(detections.person[t].numpy(), pixels[t] * scale, outline))
    return masks


def neck_ring(rig: Rig) -> Int[Tensor, "M"]:
    """Vertices of the rim at which the mesh ends below the neck; the lowest vertices of a mesh that has no such rim."""
    edges = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]]).sort(dim=1).values
    unique, counts = torch.unique(edges, dim=0, return_counts=True)
    rim = torch.zeros(rig.n_vertices, dtype=torch.bool)
    rim[unique[counts == 1].flatten()] = True
    neck = rig.regions.get("neck")
    if neck is not None and bool((rim & neck).any()):
        rim &= neck
    height = rig.template[:, 1]
    low, high = float(height.min()), float(height.max())
    lowest = height < low + 0.2 * (high - low)
    ring = torch.nonzero(rim & lowest)[:, 0]
    return ring if len(ring) >= 3 else torch.nonzero(height < low + 0.02 * (high - low))[:, 0]


def face_outline(landmarks: Float[np.ndarray, "478 2"]) -> Float[np.ndarray, "K 2"]:
    """The convex outline of the face's landmarks."""
    return landmarks[ConvexHull(landmarks).vertices]


def head_mask(person: np.ndarray, ring: np.ndarray, outline: np.ndarray | None) -> np.ndarray:
    """Mask of one frame. `person` uint8 [h, w]; `ring` [M, 2] and `outline` [K, 2] in its pixels; without an outline every person stays."""
    height, width = person.shape
    mask = person.astype(np.float32) / 255
    size = max(np.ptp(ring[:, 0]), 1.0)
    if outline is not None:
        filled = Image.new("L", (width, height))
        ImageDraw.Draw(filled).polygon([tuple(p) for p in outline.tolist()], fill=255)
        face = np.asarray(filled) > 0
        mask[face] = 1.0
        size = float(np.sqrt(np.prod(np.ptp(outline, axis=0))))
        mask *= _around(mask, face)
    cut = _lower_edge(ring, width)
    below = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - cut) / max(_SOFT * size, 0.5)
    mask *= np.clip(0.5 - 0.5 * below, 0, 1)
    return (mask * 255 + 0.5).astype(np.uint8)


def _lower_edge(ring: np.ndarray, width: int) -> np.ndarray:
    """For every column the lowest point of the ring's outline; beside the ring the height of its nearest end."""
    hull = ring[ConvexHull(ring).vertices]  # counter-clockwise in (x, y): with y down the lower edge runs from left to right backwards
    left, right = hull[hull[:, 0].argmin()], hull[hull[:, 0].argmax()]
    chord = left[1] + (hull[:, 0] - left[0]) * (right[1] - left[1]) / max(right[0] - left[0], 1e-6)
    lower = hull[hull[:, 1] >= chord - 1e-6]
    lower = lower[lower[:, 0].argsort()]
    return np.interp(np.arange(width) + 0.5, lower[:, 0], lower[:, 1]).astype(np.float32)


def _around(mask: np.ndarray, face: np.ndarray) -> np.ndarray:
    """1 on the part of the mask that is connected to the face, and a little beyond its edge; 0 on other people."""
    step = max(1, max(mask.shape) // _LABEL_PX)
    small, seed = mask[::step, ::step] > _COMPONENT, face[::step, ::step]
    labels, n = ndimage.label(small)
    if n <= 1:
        return np.ones_like(mask)
    keep = np.isin(labels, np.unique(labels[seed & small]))
    other = small & ~keep
    # Soft edges reach further than the component; what is nearer to the head than to anybody else is the head's.
    near = ndimage.distance_transform_edt(~keep) <= ndimage.distance_transform_edt(~other)
    return near.repeat(step, 0).repeat(step, 1)[: mask.shape[0], : mask.shape[1]].astype(np.float32)


def full_size(mask: np.ndarray, width: int, height: int) -> Float[Tensor, "H W"]:
    """A mask at the size of the picture, 0..1."""
    if mask.shape != (height, width):
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(mask.astype(np.float32) / 255)
