"""A small capture made in memory: a ball of a rig with two expressions, drawn with its own Gaussians, seen by two cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gafcore.avatars import init_avatar, render
from gafcore.cameras import from_angles
from gafcore.rigs import Rig
from gafcore.types import Capture, Frame, RigParams

SIZE = 48
TIMESTEPS = 4


def ball(subdivisions: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices on a sphere of 0.1 m and faces, counter-clockwise seen from outside: an octahedron, subdivided."""
    vertices = [(1.0, 0, 0), (-1.0, 0, 0), (0, 1.0, 0), (0, -1.0, 0), (0, 0, 1.0), (0, 0, -1.0)]
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    for _ in range(subdivisions):
        middle: dict[tuple[int, int], int] = {}

        def between(a: int, b: int, middle=middle) -> int:
            key = (min(a, b), max(a, b))
            if key not in middle:
                middle[key] = len(vertices)
                vertices.append(tuple((p + q) / 2 for p, q in zip(vertices[a], vertices[b], strict=True)))
            return middle[key]

        split = []
        for a, b, c in faces:
            ab, bc, ca = between(a, b), between(b, c), between(c, a)
            split += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = split
    points = torch.tensor(vertices)
    return 0.1 * points / points.norm(dim=-1, keepdim=True), torch.tensor(faces)


def ball_rig() -> Rig:
    """Five joints at the origin, everything bound to the root; expression 0 stretches the ball upwards, 1 bulges its front."""
    vertices, faces = ball()
    n = vertices.shape[0]
    stretch = torch.zeros(n, 3)
    stretch[:, 1] = vertices[:, 1] * 0.2
    bulge = torch.zeros(n, 3)
    bulge[:, 2] = vertices[:, 2].clamp(min=0) * 0.3
    weights = torch.zeros(n, 5)
    weights[:, 0] = 1
    return Rig(
        name="ball",
        spec={"kind": "ball"},
        template=vertices,
        shape_basis=0.05 * vertices[None],
        expr_basis=torch.stack([stretch, bulge]),
        faces=faces,
        uvs=torch.zeros(1, 2),
        uv_faces=torch.zeros_like(faces),
        joint_regressor=torch.zeros(5, n),
        skin_weights=weights,
        regions={"face": vertices[:, 2] > 0},
        landmarks={},
        expression_names=("stretch", "bulge"),
    )


def ball_params(rig: Rig) -> RigParams:
    t = torch.linspace(0, 1, TIMESTEPS)
    neutral = rig.neutral(TIMESTEPS)
    rotation = torch.stack([torch.zeros_like(t), 0.3 * (t - 0.5), torch.zeros_like(t)], -1)
    return replace(neutral, shape=torch.ones(rig.n_shape), expr=torch.stack([t, 1 - t], -1), rotation=rotation)


def ball_capture() -> Capture:
    """Camera 0 trains, camera 1 (60 degrees to the side) is the split "novel_view"."""
    rig = ball_rig()
    params = ball_params(rig)
    colors = 0.5 + 4 * rig.template[rig.faces].mean(1)
    truth = init_avatar(rig, params, colors.clamp(0, 1), opacity=0.9, log_scales=torch.full((len(colors), 3), 0.5).log())
    cameras = [from_angles(a, 0.1, 1.0, focal_px=3.2 * SIZE, width=SIZE, height=SIZE) for a in (0.0, 1.05)]
    frames = []
    for t in range(TIMESTEPS):
        for c, camera in enumerate(cameras):
            view = render(truth, [camera], params[t])
            image, mask = view.image[0].clamp(0, 1), view.alpha[0]
            frames.append(Frame(camera, t, c, lambda x=image: x.clone(), lambda x=mask: x.clone(), camera_id=str(c)))
    splits = {"train": tuple(range(0, 2 * TIMESTEPS, 2)), "novel_view": tuple(range(1, 2 * TIMESTEPS, 2))}
    return Capture(tuple(frames), rig, params, splits)


def with_picture_to_spoil(capture: Capture) -> tuple[Capture, Callable[[], None]]:
    """The capture with a first picture that holds NaN from the moment that the returned function is called."""
    spoiled = []

    def picture() -> torch.Tensor:
        image = capture.frames[0].image()
        if spoiled:
            image[3, 4, 1] = float("nan")
        return image

    frames = (replace(capture.frames[0], image=picture), *capture.frames[1:])
    return replace(capture, frames=frames), lambda: spoiled.append(True)
