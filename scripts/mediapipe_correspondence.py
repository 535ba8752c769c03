"""Where MediaPipe's 478 landmarks lie on a rig: render it as many random people, detect, and keep the mesh point that explains best.

MediaPipe has no table onto a foreign mesh, and its idea of a point is statistical. So: random identities, expressions, poses, lights and
skins; for every landmark the surface point with the smallest robust image distance over all renders. Used by the build_*.py scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rig_paint import Palette, gaze_angle, shade
from torch import Tensor

from gafcore.cameras import from_angles
from gafcore.pictures import to_uint8
from gafcore.progress import track
from gafcore.rigs import Rig
from gafcore.types import Camera, RigParams

SIZE_PX = 512
N_FACE, N_POINTS = 468, 478
_HUBER_PX = 3.0


@dataclass(frozen=True)
class Correspondence:
    triangles: np.ndarray  # [478, 3] vertex numbers
    barycentrics: np.ndarray  # [478, 3]
    spread: np.ndarray  # [478] metres, median distance between detection and point
    n_renders: int

    def summary(self, tried: int) -> str:
        face, iris = self.spread[:N_FACE] * 1000, self.spread[N_FACE:] * 1000
        return (
            f"faces found in {self.n_renders} of {tried} renders; spread median {np.median(face):.2f} mm, "
            f"p95 {np.percentile(face, 95):.2f} mm, irises {np.median(iris):.2f} mm"
        )


def correspond(rig: Rig, model: Path, n_renders: int = 300, seed: int = 0) -> Correspondence:
    """Render, detect, and choose; about 40 ms a render."""
    from mediapipe.tasks.python import BaseOptions, vision  # an extra, needed by the scripts only

    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=1)
    generator = torch.Generator().manual_seed(seed)
    detections, projections, metres_per_px = [], [], []
    with vision.FaceLandmarker.create_from_options(options) as detector:
        for _ in track(range(n_renders), f"{rig.name}: rendering and detecting", n_renders):
            params, camera = random_params(rig, generator), random_camera(generator)
            vertices = rig.vertices(params)[0]
            points = detect(detector, paint(rig, vertices, camera, generator))
            if points is None:
                continue
            pixels, depth = project(vertices, camera)
            detections.append(points)
            projections.append(pixels)
            metres_per_px.append(float(depth.mean()) / float(camera.K[0, 0]))
    return _choose(rig, torch.stack(detections), torch.stack(projections), torch.tensor(metres_per_px))


def random_params(rig: Rig, generator: torch.Generator) -> RigParams:
    """Somebody, somehow: identity N(0, 0.8), a few expressions, head and eyes turned."""

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    expr = uniform(1, rig.n_expr, low=0.0, high=0.8) * (uniform(1, rig.n_expr, low=0.0) < 0.12)
    gaze = uniform(1, 3) * torch.tensor([0.12, 0.3, 0.0])
    neutral = rig.neutral()
    return RigParams(
        shape=torch.randn(rig.n_shape, generator=generator) * 0.8,
        expr=expr,
        rotation=uniform(1, 3) * torch.tensor([0.3, 0.6, 0.2]),
        neck_pose=neutral.neck_pose,
        jaw_pose=neutral.jaw_pose,
        eyes_pose=torch.cat([gaze, gaze], -1),
        translation=neutral.translation,
    )


def random_camera(generator: torch.Generator) -> Camera:
    focal, fill, dx, dy = (torch.rand(4, generator=generator) * torch.tensor([1400.0, 0.25, 0.04, 0.04])).tolist()
    focal += 900
    distance = focal * 0.26 / (SIZE_PX * (0.55 + fill))
    return from_angles(0, 0, distance, focal_px=focal, width=SIZE_PX, height=SIZE_PX, target=(dx - 0.02, dy - 0.02, 0))


def detect(detector: object, image: Tensor) -> Tensor | None:
    """Landmarks [478, 2] in pixels, or None where MediaPipe sees no face."""
    import mediapipe

    result = detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(to_uint8(image))))
    if not result.face_landmarks:
        return None
    return torch.tensor([[p.x * SIZE_PX, p.y * SIZE_PX] for p in result.face_landmarks[0]])


def project(vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Pixels [V, 2] and depths [V]."""
    in_camera = vertices @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    homogeneous = in_camera @ camera.K.T
    return homogeneous[:, :2] / homogeneous[:, 2:], in_camera[:, 2]


def paint(rig: Rig, vertices: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """The head in random colours under random light: skin, brows, lips, irises, a cap of hair."""
    amount = torch.rand(16, generator=generator)
    skin = torch.tensor([0.92, 0.72, 0.60]) * (0.45 + 0.55 * amount[0]) + 0.06 * (amount[1:4] - 0.5)
    hair = torch.tensor([0.45, 0.33, 0.2]) * (0.15 + 0.9 * amount[4])
    palette = Palette(
        skin=skin,
        hair=hair,
        brows=hair * 0.8,
        lips=skin * torch.tensor([0.85, 0.55, 0.55]),
        iris=torch.tensor([0.35, 0.3, 0.25]) * (0.5 + amount[5:8]),
    )
    key = torch.nn.functional.normalize(torch.tensor([1.4, 1.0, 0.0]) * (amount[8:11] - 0.5) + torch.tensor([0.0, 0.2, 0.8]), dim=0)
    image, mask = shade(rig, vertices, camera, palette, key, 0.35 + 0.3 * float(amount[11]), 0.3 + 0.5 * float(amount[12]))
    return torch.where(mask[..., None], image, amount[13:16])


def _choose(rig: Rig, detections: Tensor, projections: Tensor, metres_per_px: Tensor) -> Correspondence:
    iris = (gaze_angle(rig, rig.template) < 0.8).nonzero()[:, 0]
    face = ((rig.regions["face"] | rig.regions["scalp"] | rig.regions["neck"]) & (rig.template[:, 2] > -0.02)).nonzero()[:, 0]
    allowed = {}
    for name, numbers in (("iris", iris), ("face", face)):
        allowed[name] = torch.zeros(rig.n_vertices, dtype=torch.bool)
        allowed[name][numbers] = True
    grid = _barycentric_grid(8)
    triangles, barycentrics, spread = [], [], []
    for point in track(range(N_POINTS), f"{rig.name}: choosing points", N_POINTS):
        candidates, part = (face, allowed["face"]) if point < N_FACE else (iris, allowed["iris"])
        seen = detections[:, point]
        few = candidates[_cost(projections[::6, candidates], seen[::6]).argsort()[:150]]  # a sixth of the renders rules most out
        best = few[_cost(projections[:, few], seen).argsort()[:6]]
        near = torch.isin(rig.faces, best).any(1) & part[rig.faces].all(1)
        corners = rig.faces[near]
        inside = torch.einsum("rfcx,gc->rfgx", projections[:, corners], grid).flatten(1, 2)
        winner = int(_cost(inside, seen).argmin())
        triangles.append(corners[winner // len(grid)])
        barycentrics.append(grid[winner % len(grid)])
        distance = (inside[:, winner] - seen).norm(dim=-1) * metres_per_px
        spread.append(distance.median())
    return Correspondence(torch.stack(triangles).numpy(), torch.stack(barycentrics).numpy(), torch.stack(spread).numpy(), len(detections))


def _cost(points: Tensor, seen: Tensor) -> Tensor:
    """Mean Huber cost [K] of points [R, K, 2] against detections [R, 2]."""
    distance = (points - seen[:, None]).norm(dim=-1)
    return torch.where(distance < _HUBER_PX, distance**2 / (2 * _HUBER_PX), distance - _HUBER_PX / 2).mean(0)


def _barycentric_grid(n: int) -> Tensor:
    return torch.tensor([[i / n, j / n, (n - i - j) / n] for i in range(n + 1) for j in range(n + 1 - i)])
