"""A rig and a capture small enough to write, break and read again in milliseconds."""

from __future__ import annotations

import pytest
import torch

from gafcore.cameras import from_angles
from gafcore.captures import vhap
from gafcore.rigs.base import Rig
from gafcore.types import Capture, Frame, LandmarkEmbedding, RigParams

N_VERTICES, N_SHAPE, N_EXPR = 12, 4, 5


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_rig() -> Rig:
    faces = torch.tensor([[i, i + 1, i + 2] for i in range(N_VERTICES - 2)])
    landmark = LandmarkEmbedding(torch.zeros(68, dtype=torch.long), torch.full((68, 3), 1 / 3), torch.arange(68))
    return Rig(
        name="tiny",
        spec={"name": "tiny"},
        template=random(0, N_VERTICES, 3),
        shape_basis=random(1, N_SHAPE, N_VERTICES, 3),
        expr_basis=random(2, N_EXPR, N_VERTICES, 3),
        faces=faces,
        uvs=torch.rand(N_VERTICES, 2, generator=torch.Generator().manual_seed(3)),
        uv_faces=faces,
        joint_regressor=torch.full((5, N_VERTICES), 1 / N_VERTICES),
        skin_weights=torch.eye(5)[torch.zeros(N_VERTICES, dtype=torch.long)],
        regions={},
        landmarks={"ibug68": landmark},
        expression_names=tuple(f"e{i}" for i in range(N_EXPR)),
    )


def tiny_capture(n_timesteps: int = 5, n_cameras: int = 3, size: tuple[int, int] = (7, 5), offset: bool = True) -> Capture:
    """Random pictures and parameters; odd sizes, uneven principal points, values that do not survive a second inversion untouched."""
    rig, (width, height) = tiny_rig(), size
    n = n_timesteps
    params = RigParams(
        shape=random(10, N_SHAPE),
        expr=random(11, n, N_EXPR),
        rotation=random(12, n, 3) * 1e-7,
        neck_pose=random(13, n, 3),
        jaw_pose=-torch.zeros(n, 3),
        eyes_pose=random(14, n, 6),
        translation=random(15, n, 3) * 1e3,
        static_offset=random(16, N_VERTICES, 3) if offset else None,
    )
    frames = []
    for t in range(n):
        for c in range(n_cameras):
            camera = from_angles(0.3 * c - 0.1, 0.1 * t, 1 / 3, focal_px=17.3 + c, width=width, height=height)
            camera.K[0, 2], camera.K[1, 1] = 1.7 - c, 19.1
            image = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(100 * t + c)).float() / 255
            mask = image[..., 0] if c != 1 else None
            frames.append(Frame(camera, t, c, lambda x=image: x, None if mask is None else (lambda x=mask: x), f"cam{c}", f"t{t}"))
    last = n_cameras * (n - 1)
    everything = range(len(frames))
    splits = {"train": tuple(i for i in everything if i % n_cameras == 0 and i < last), "novel_expression": tuple(range(last, len(frames)))}
    return Capture(tuple(frames), rig, params, splits, (1.0, 0.5, 0.0), {"note": "tiny"})


@pytest.fixture
def capture() -> Capture:
    return tiny_capture()


@pytest.fixture(autouse=True)
def _known_rigs(monkeypatch):
    """`rig.json` may name the tiny rig; every other description goes to the real loader."""
    load = vhap.load_rig
    monkeypatch.setattr(vhap, "load_rig", lambda spec: tiny_rig() if spec == {"name": "tiny"} else load(spec))
