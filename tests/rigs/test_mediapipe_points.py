"""The stored MediaPipe points on renders that the building script never saw: they lie where MediaPipe sees them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def correspondence():
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed (extra `track`)")
    sys.path.insert(0, str(SCRIPTS))
    import mediapipe_correspondence

    yield mediapipe_correspondence
    sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize("name", ["procedural", "ict"])
def test_reprojection(correspondence, name, test_data, request):
    from mediapipe.tasks.python import BaseOptions, vision

    rig = request.getfixturevalue(name)
    model = test_data("models/face_landmarker.task")
    generator = torch.Generator().manual_seed(987)
    face, iris = [], []
    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=1)
    with vision.FaceLandmarker.create_from_options(options) as detector:
        for _ in range(5):
            params, camera = correspondence.random_params(rig, generator), correspondence.random_camera(generator)
            vertices = rig.vertices(params)
            seen = correspondence.detect(detector, correspondence.paint(rig, vertices[0], camera, generator))
            assert seen is not None
            points, depth = correspondence.project(rig.landmark_points(vertices, "mediapipe")[0], camera)
            error_mm = (points - seen).norm(dim=-1) * depth / camera.K[0, 0] * 1000
            face.append(error_mm[:468])
            iris.append(error_mm[468:])
    assert float(torch.stack(face).median()) < 3.0
    assert float(torch.stack(face).flatten().quantile(0.95)) < 9.0
    assert float(torch.stack(iris).median()) < 2.0
