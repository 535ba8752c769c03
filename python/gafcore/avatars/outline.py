"""Where a mesh's outline lies, and how far the head's mask reaches beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from gafcore.mesh import rasterize
from gafcore.types import Camera

_NORMAL_PX = 2.0  # the outline's direction is read from the silhouette blurred by this much
_INSIDE = 0.5  # the mask's edge
_STEP_PX = 0.5
_BORDER_PX = 2  # an outline at the picture's border is the border's


@dataclass(frozen=True)
class Outline:
    """K pixels along the outline of a mesh: which triangle each shows, where on it, and how far it is to the mask's edge.

    Attributes:
        faces: Triangle of the pixel.
        barycentrics: The pixel's centre on it.
        normals: Unit, in the picture (x right, y down), away from the mesh.
        gaps_px: Distance along the normal to the edge of the mask; negative where the mesh reaches beyond it.
    """

    faces: Int[Tensor, "K"]
    barycentrics: Float[Tensor, "K 3"]
    normals: Float[Tensor, "K 2"]
    gaps_px: Float[Tensor, "K"]

    def __getitem__(self, chosen: Tensor) -> Outline:
        return Outline(self.faces[chosen], self.barycentrics[chosen], self.normals[chosen], self.gaps_px[chosen])


def outline(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], camera: Camera, mask: Float[Tensor, "H W"], reach_px: float
) -> Outline:
    """The mesh's outline against a mask. Pixels with no edge of the mask within `reach_px` along their normal are left out."""
    raster = rasterize(vertices[None], faces, camera)
    shown = raster.triangle_ids[0].numpy() >= 0
    edge = shown & ~ndimage.binary_erosion(shown, border_value=1)
    edge[:_BORDER_PX] = edge[-_BORDER_PX:] = edge[:, :_BORDER_PX] = edge[:, -_BORDER_PX:] = False
    ys, xs = np.nonzero(edge)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(shown.astype(np.float32), _NORMAL_PX))
    normals = -np.stack([slope_x[ys, xs], slope_y[ys, xs]], 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    gaps = _gaps(mask.numpy(), xs, ys, normals, reach_px)
    known = np.isfinite(gaps)
    rows, columns = torch.from_numpy(ys[known]), torch.from_numpy(xs[known])
    return Outline(
        faces=raster.triangle_ids[0][rows, columns].long(),
        barycentrics=raster.barycentrics[0][rows, columns],
        normals=torch.from_numpy(normals[known]).float(),
        gaps_px=torch.from_numpy(gaps[known]).float(),
    )


def _gaps(mask: np.ndarray, xs: np.ndarray, ys: np.ndarray, normals: np.ndarray, reach_px: float) -> np.ndarray:
    """Signed distance from each pixel along its normal to where the mask ends; NaN where it does not within reach.

    Where the head leaves the picture the gap ends at the border: that much at least is head.
    """
    height, width = mask.shape
    steps = np.arange(0, reach_px + _STEP_PX, _STEP_PX, dtype=np.float32)

    def along(sign: float) -> tuple[np.ndarray, np.ndarray]:
        x = xs[:, None] + sign * normals[:, :1] * steps
        y = ys[:, None] + sign * normals[:, 1:] * steps
        within = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        head = ndimage.map_coordinates(mask, [y.clip(0, height - 1), x.clip(0, width - 1)], order=1) > _INSIDE
        return head, within

    head, within = along(1.0)
    inside = head[:, 0]
    out = _first(~head | ~within)
    head, within = along(-1.0)
    back = _first(head & within)
    return np.where(inside, out * _STEP_PX - _STEP_PX / 2, -back * _STEP_PX + _STEP_PX / 2)


def _first(condition: np.ndarray) -> np.ndarray:
    """Number of the first true column of each row; NaN where there is none."""
    return np.where(condition.any(1), condition.argmax(1), np.nan)
