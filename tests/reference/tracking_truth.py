"""Is the mesh where the face is? Answered on pictures whose vertices are known, because landmark residuals do not tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gafcore.captures import synthetic
from gafcore.captures.synthetic.motion import random_identity
from gafcore.captures.video import Clip
from gafcore.mesh import rasterize
from gafcore.pictures import to_uint8
from gafcore.rigs.base import Rig
from gafcore.tracking.solve import Solution
from gafcore.types import Camera, RigParams

PARTS = ("eyelids", "nose", "lips", "cheeks", "forehead", "jaw")


class Rendered:
    """Pictures of a made-up person in memory, as a clip's source."""

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self.pictures = pictures

    def pixels(self, i: int) -> np.ndarray:
        return self.pictures[i]


def film(rig: Rig, motion: RigParams, camera: Camera, seed: int, fps: float = 30.0, **look) -> tuple[Clip, torch.Tensor]:
    """A clip of somebody with this motion and an identity of their own, and their vertices [T, V, 3] in the camera's space."""
    motion = replace(motion, shape=random_identity(rig, seed), expr=motion.expr.clamp(0, 1))
    made = synthetic.from_motion(rig, motion, [camera], seed=seed, **look)
    pictures = [to_uint8(frame.image()) for frame in made.capture.frames]
    times = np.arange(len(pictures)) / fps
    clip = Clip(f"synthetic-{seed}", camera.width, camera.height, times, fps, False, Rendered(pictures))
    return clip, rig.vertices(motion) @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]


def vertex_errors(rig: Rig, solution: Solution, truth: torch.Tensor, camera: Camera) -> dict[str, float]:
    """Distances, px, of visible vertices from where they truly are: median and 95th percentile of the face, medians of parts."""
    here = replace(camera, viewmat=torch.eye(4))
    errors, seen = [], []
    for t, vertices in enumerate(truth):
        ids = rasterize(vertices, rig.faces, here).triangle_ids
        visible = torch.zeros(rig.n_vertices, dtype=torch.bool)
        visible[rig.faces[ids[ids >= 0].long().unique()].flatten()] = True
        flip = torch.tensor([1.0, -1.0, -1.0])
        tracked = _pinhole(rig.vertices(solution.params[t])[0] * flip, solution.focal_px, camera)
        errors.append((tracked - _pinhole(vertices, float(camera.K[0, 0]), camera)).norm(dim=-1))
        seen.append(visible)
    error, visible = torch.stack(errors), torch.stack(seen)
    face = error[visible & rig.regions["face"]]
    parts = {name: float(error[visible & rig.regions[name]].median()) for name in PARTS if name in rig.regions}
    return {"face": float(face.median()), "face_p95": float(face.quantile(0.95)), **parts}


def _pinhole(points: torch.Tensor, focal_px: float, camera: Camera) -> torch.Tensor:
    return focal_px * points[:, :2] / points[:, 2:] + torch.tensor([camera.width / 2, camera.height / 2])
