"""Region masks from iBUG-68 landmarks, so that a name means the same place on every rig."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Regions that every built-in rig has. "eyes" joins the two eyeballs; "mouth" is all that lies behind the lips, teeth included.
REGION_NAMES = (
    "face", "scalp", "neck", "ears", "eyes", "left_eye", "right_eye", "teeth", "mouth",
    "lips", "nose", "forehead", "cheeks", "jaw", "eyelids", "skin",
)  # fmt: skip


def head_regions(vertices: np.ndarray, points68: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Masks [V] for `REGION_NAMES`.

    Args:
        vertices: [V, 3] metres, neutral head, y up, facing +z.
        points68: [68, 3] its iBUG landmarks.
        parts: masks [V] of "skin", "ears", "mouth", "teeth", "left_eye", "right_eye"; "lips" where the mesh knows them.
    """
    x, y, z = vertices.T
    skin, ears = parts["skin"], parts["ears"]
    chin, brow, outer_jaw = points68[8], points68[17:27, 1].mean(), points68[[0, 16], 2].mean()
    neck_line = np.interp(z, [chin[2] - 0.17, chin[2] - 0.02, chin[2] + 0.01], [chin[1] + 0.035, chin[1] - 0.006, chin[1] - 0.02])
    below = skin & ~ears & (y < neck_line)
    hairline = np.interp(
        z, [outer_jaw - 0.13, outer_jaw - 0.03, outer_jaw, outer_jaw + 0.035], [chin[1] + 0.035, brow - 0.07, brow, brow + 0.038]
    )
    scalp = skin & ~ears & ~below & (y > hairline)
    front = skin & ~ears & ~below & ~scalp & (z > outer_jaw - 0.012)
    neck = skin & ~ears & ~scalp & ~front
    in_front = z > points68[48:60, 2].min() - 0.012
    lips = parts["lips"] if "lips" in parts else skin & in_front & inside_polygon(x, y, grow(points68[48:60, :2], 1.06))
    nose = front & inside_polygon(x, y, _nose_outline(points68))
    eyelids = front & (inside_polygon(x, y, grow(points68[36:42, :2], 2.0)) | inside_polygon(x, y, grow(points68[42:48, :2], 2.0)))
    forehead = front & (y > brow)
    mouth_y, eye_y = points68[48:68, 1].mean(), points68[36:48, 1].mean()
    cheeks = front & (y < eye_y - 0.01) & (y > mouth_y) & (np.abs(x) > 0.018) & ~nose & ~eyelids & ~lips
    jaw = front & (y <= mouth_y) & ~lips
    masks = {
        "face": front | lips, "scalp": scalp, "neck": neck, "ears": ears,
        "eyes": parts["left_eye"] | parts["right_eye"], "left_eye": parts["left_eye"], "right_eye": parts["right_eye"],
        "teeth": parts["teeth"], "mouth": parts["mouth"] | parts["teeth"], "lips": lips, "nose": nose,
        "forehead": forehead, "cheeks": cheeks, "jaw": jaw, "eyelids": eyelids, "skin": skin,
    }  # fmt: skip
    return {name: torch.from_numpy(np.ascontiguousarray(masks[name])) for name in REGION_NAMES}


def grow(polygon: np.ndarray, factor: float) -> np.ndarray:
    """The polygon scaled about its mean."""
    centre = polygon.mean(0)
    return centre + (polygon - centre) * factor


def _nose_outline(points68: np.ndarray) -> np.ndarray:
    top, base, wing = points68[27, :2], points68[33, :2], abs(points68[[31, 35], 0]).mean()
    side = [(0.006, top[1]), (wing + 0.004, base[1] + 0.018), (wing + 0.008, base[1] + 0.004), (wing - 0.001, base[1] - 0.003)]
    return np.array([(top[0] + dx, dy) for dx, dy in side] + [(top[0] - dx, dy) for dx, dy in reversed(side)])


def inside_polygon(x: np.ndarray, y: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd rule."""
    inside = np.zeros(len(x), bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside
