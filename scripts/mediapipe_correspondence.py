"""Where MediaPipe's 478 landmarks lie on a rig: render it as many random people, detect, and keep the mesh point that explains best.

MediaPipe has no table onto a foreign mesh, and its idea of a point is statistical. So: random identities, expressions, poses, lights and
skins; for every landmark the surface point with the smallest robust image distance over all renders. Used by the build_*.py scripts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gafcore.cameras import from_angles
from gafcore.mesh import vertex_normals
from gafcore.ops import interpolate, rasterize_mesh
from gafcore.pictures import to_uint8
from gafcore.progress import track
from gafcore.rigs import Rig
from gafcore.rigs.regions import inside_polygon
from gafcore.types import Camera, RigParams

SIZE_PX = 512
N_FACE, N_POINTS = 468, 478
_HUBER_PX = 3.0
_IRIS_RAD, _PUPIL_RAD = 0.50, 0.18  # half angles seen from the centre of the eyeball


@dataclass(frozen=True)
class Correspondence:
    triangles: np.ndarray  # [478, 3] vertex numbers
    barycentrics: np.ndarray  # [478, 3]
    spread: np.ndarray  # [478] metres, median distance between detection and point
    n_renders: int


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
    colors = skin.expand(rig.n_vertices, 3).clone()
    colors[rig.regions["lips"]] = skin * torch.tensor([0.85, 0.55, 0.55])
    colors[rig.regions["mouth"]] = torch.tensor([0.35, 0.12, 0.12])
    colors[rig.regions["teeth"]] = 0.9
    colors[brow_mask(rig)] = hair * 0.8
    colors[rig.regions["scalp"]] = hair
    colors[rig.regions["eyes"]] = 0.92
    angle = gaze_angle(rig)
    colors[angle < _IRIS_RAD] = torch.tensor([0.35, 0.3, 0.25]) * (0.5 + amount[5:8])
    colors[angle < _PUPIL_RAD] = 0.03
    normals = vertex_normals(vertices[None], rig.faces)[0]
    key = torch.nn.functional.normalize(torch.tensor([1.4, 1.0, 0.0]) * (amount[8:11] - 0.5) + torch.tensor([0.0, 0.2, 0.8]), dim=0)
    shade = 0.35 + 0.3 * amount[11] + (0.3 + 0.5 * amount[12]) * (normals @ key).clamp(min=0)
    lit = (colors * shade[:, None]).clamp(0, 1)
    ids, barycentrics, _ = rasterize_mesh(vertices, rig.faces, camera.viewmat[None], camera.K[None], camera.width, camera.height)
    image = interpolate(lit, rig.faces, ids, barycentrics)[0]
    return torch.where(ids[0, ..., None] >= 0, image, amount[13:16])


def brow_mask(rig: Rig) -> Tensor:
    """Vertices under a band 8 mm high along the brow landmarks 17-26."""
    vertices = rig.vertices(rig.neutral())
    points = rig.landmark_points(vertices, "ibug68")[0].numpy()
    x, y, z = vertices[0].numpy().T
    mask = np.zeros(rig.n_vertices, bool)
    for line in (points[17:22, :2], points[22:27, :2]):
        band = np.concatenate([line + [0, 0.004], line[::-1] - [0, 0.004]])
        mask |= inside_polygon(x, y, band)
    return torch.from_numpy(mask & (z > 0)) & rig.regions["skin"]


def gaze_angle(rig: Rig) -> Tensor:
    """Angle [V] between the eye's axis and each of its vertices, radians; pi off the eyeballs."""
    joints = rig.joint_positions(rig.neutral())[0]
    template = rig.vertices(rig.neutral())[0]
    angle = torch.full((rig.n_vertices,), math.pi)
    for name in ("left_eye", "right_eye"):
        mask = rig.regions[name]
        offset = torch.nn.functional.normalize(template[mask] - joints[rig.joint_names.index(name)], dim=-1)
        angle[mask] = offset[:, 2].clamp(-1, 1).acos()
    return angle


def _choose(rig: Rig, detections: Tensor, projections: Tensor, metres_per_px: Tensor) -> Correspondence:
    iris = (gaze_angle(rig) < 0.8).nonzero()[:, 0]
    face = ((rig.regions["face"] | rig.regions["scalp"] | rig.regions["neck"]) & (rig.template[:, 2] > -0.02)).nonzero()[:, 0]
    triangles, barycentrics, spread = [], [], []
    for point in track(range(N_POINTS), f"{rig.name}: choosing points", N_POINTS):
        candidates = face if point < N_FACE else iris
        seen = detections[:, point]
        cost = _cost(projections[:, candidates], seen)
        allowed = torch.zeros(rig.n_vertices, dtype=torch.bool)
        allowed[candidates] = True
        best = candidates[cost.argsort()[:6]]
        near = torch.isin(rig.faces, best).any(1) & allowed[rig.faces].all(1)
        corners = rig.faces[near]
        grid = _barycentric_grid(8).to(projections.dtype)
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
