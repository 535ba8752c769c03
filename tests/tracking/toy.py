"""A small head-like rig and landmarks made from it, for tests of the solver."""

from __future__ import annotations

import math

import torch
from scipy.spatial import ConvexHull

from gafcore.rigs.base import Rig
from gafcore.tracking.detections import Detections
from gafcore.tracking.points import PointModel
from gafcore.types import LandmarkEmbedding, RigParams

ARKIT = ("jawOpen", "eyeBlink_L", "eyeBlink_R", "mouthSmile_L", "mouthSmile_R", "browInnerUp")


def smooth_modes(points: torch.Tensor, n: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """n smooth random displacement fields [n, V, 3]."""
    frequency = torch.randn(n, 3, 3, generator=generator, dtype=torch.float64) * 18
    phase = torch.rand(n, 1, 3, generator=generator, dtype=torch.float64) * 2 * math.pi
    return scale * torch.sin(torch.einsum("vi,nij->nvj", points, frequency) + phase)


def toy_rig(n_vertices: int = 240, n_shape: int = 6, seed: int = 0) -> Rig:
    """An egg with smooth modes, two eyes and a jaw with soft weights, and a landmark on every front face, numbered like MediaPipe's."""
    g = torch.Generator().manual_seed(seed)
    i = torch.arange(n_vertices, dtype=torch.float64) + 0.5
    polar, around = torch.acos(1 - 2 * i / n_vertices), math.pi * (1 + 5**0.5) * i
    unit = torch.stack([around.cos() * polar.sin(), around.sin() * polar.sin(), polar.cos()], 1)
    template = unit * torch.tensor([0.075, 0.11, 0.09]) + torch.tensor([0.0, 0.04, 0.02])
    faces = torch.from_numpy(ConvexHull(unit.numpy()).simplices).long()
    corners = unit[faces]
    inward = (torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * corners.mean(1)).sum(-1) < 0
    faces[inward] = faces[inward].flip(1)

    near = lambda x, y, z, r: torch.exp(-((template - torch.tensor([x, y, z], dtype=torch.float64)) ** 2).sum(-1) / (2 * r * r))  # noqa: E731
    eyes = [near(s * 0.03, 0.06, 0.1, 0.012) for s in (1, -1)]
    jaw = near(0.0, -0.03, 0.09, 0.03) * 0.5
    weights = torch.stack([torch.zeros_like(jaw), 1 - jaw - eyes[0] - eyes[1], jaw, *eyes], 1).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    regressor = torch.stack(
        [near(x, y, z, 0.03) for x, y, z in [(0, -0.03, 0), (0, 0, 0), (0, 0.02, 0.04), (0.03, 0.06, 0.09), (-0.03, 0.06, 0.09)]]
    )
    regressor = regressor / regressor.sum(1, keepdim=True)

    shape, expr = smooth_modes(template, n_shape, 0.003, g), smooth_modes(template, len(ARKIT), 0.012, g)
    front = torch.nonzero(template[faces].mean(1)[:, 2] > 0.045)[:, 0]
    bary = torch.rand(len(front), 3, generator=g, dtype=torch.float64) + 0.1
    embedding = LandmarkEmbedding(front, bary / bary.sum(1, keepdim=True), torch.arange(len(front)))
    return Rig(
        name="toy",
        spec={"rig": "toy"},
        template=template,
        shape_basis=shape,
        expr_basis=expr,
        faces=faces,
        uvs=torch.zeros(1, 2),
        uv_faces=torch.zeros_like(faces),
        joint_regressor=regressor,
        skin_weights=weights,
        regions={},
        landmarks={"mediapipe": embedding},
        expression_names=ARKIT,
    )


def toy_motion(rig: Rig, n_frames: int, seed: int = 1, distance_m: float = 0.6) -> RigParams:
    """Smooth motion before a camera at the origin that looks along -z; the parameters that tracking solves for, float64."""
    g = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 1, n_frames, dtype=torch.float64)[:, None]

    def wave(size: int, scale: float) -> torch.Tensor:
        phase = torch.rand(size, generator=g, dtype=torch.float64) * 2 * math.pi
        return scale * torch.sin(2 * math.pi * time * (1 + torch.arange(size)) / max(size, 1) + phase)

    gaze = wave(2, 0.2)
    zeros = torch.zeros(n_frames, 1, dtype=torch.float64)
    return RigParams(
        shape=torch.randn(rig.n_shape, generator=g, dtype=torch.float64) * 0.7,
        expr=(wave(rig.n_expr, 0.3) + 0.35).clamp(0.05, 0.95),
        rotation=wave(3, 0.25),
        neck_pose=torch.zeros(n_frames, 3, dtype=torch.float64),
        jaw_pose=torch.zeros(n_frames, 3, dtype=torch.float64),
        eyes_pose=torch.cat([gaze, zeros, gaze, zeros], 1),
        translation=wave(3, 0.01) + torch.tensor([0.0, 0.0, -distance_m], dtype=torch.float64),
    )


def parameters(model: PointModel, params: RigParams) -> torch.Tensor:
    """The solver's vector [T, P] of these parameters."""
    layout = model.layout
    theta = torch.zeros(len(params), layout.size, dtype=torch.float64)
    theta[:, layout.rotation], theta[:, layout.translation] = params.rotation, params.translation
    theta[:, layout.expr], theta[:, layout.jaw] = params.expr, params.jaw_pose
    theta[:, layout.eyes] = params.eyes_pose[:, [0, 1, 3, 4]]
    return theta


def picture(points: torch.Tensor, focal_px: float, width: int, height: int) -> torch.Tensor:
    """A pinhole camera at the origin, looking along -z, written independently of the tracker."""
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=points.dtype)
    k = torch.tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]], dtype=points.dtype)
    seen = (points * flip) @ k.T
    return seen[..., :2] / seen[..., 2:]


def toy_detections(
    rig: Rig, params: RigParams, focal_px: float = 900.0, size: tuple[int, int] = (512, 480), noise_px: float = 0.0
) -> Detections:
    """What a perfect detector with some noise would find."""
    n = len(params)
    seen = picture(rig.posed_landmarks(params, "mediapipe"), focal_px, *size)
    seen = seen + noise_px * torch.randn(seen.shape, generator=torch.Generator().manual_seed(2), dtype=seen.dtype)
    landmarks = torch.full((n, 478, 2), float("nan"))
    landmarks[:, : seen.shape[1]] = seen.float()
    return Detections(
        landmarks=landmarks,
        scores=torch.zeros(n, 0),
        score_names=(),
        found=torch.ones(n, dtype=torch.bool),
        n_faces=torch.ones(n, dtype=torch.int64),
        person=torch.full((n, 8, 8), 255, dtype=torch.uint8),
        cuts=(),
        times_s=torch.arange(n) / 30,
        width=size[0],
        height=size[1],
    )
