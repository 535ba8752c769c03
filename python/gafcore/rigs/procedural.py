"""The built-in head: sculpted by scripts/build_procedural.py, shipped with the package. Original work, no scan behind it."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import torch

from gafcore.errors import InputError
from gafcore.rigs.base import JOINT_NAMES, Rig
from gafcore.rigs.joints import affine_regressor
from gafcore.rigs.landmarks import embed_triangles, embed_vertices
from gafcore.rigs.regions import head_regions

VERSION = 1  # raised whenever vertices, modes or expressions change, so that saved avatars are not posed by another head

# Joints in metres: base of the neck, skull on the atlas, jaw hinge, eyeballs.
_JOINTS = {
    "root": (0, -0.14, -0.025),
    "neck": (0, -0.04, -0.022),
    "jaw": (0, 0.003, 0.005),
    "left_eye": (0.0315, 0.033, 0.064),
    "right_eye": (-0.0315, 0.033, 0.064),
}


def load_procedural(version: object = None) -> Rig:
    """The built-in rig.

    Raises:
        InputError: Another `version` of it is asked for than this package has.
    """
    if version is not None and version != VERSION:
        raise InputError(f"this gafcore has version {VERSION} of the procedural rig, asked for version {version!r}")
    return _build()


@cache
def _build() -> Rig:
    with (
        resources.files("gafcore.rigs.data").joinpath("procedural.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        data = dict(archive)
    vertices, faces = data["vertices"], data["faces"].astype(np.int64)
    parts = {str(name): data["label"] == i for i, name in enumerate(data["label_names"])}
    landmarks = {"ibug68": embed_vertices(faces, data["ibug68_vertices"])}
    spread = {}
    if len(data["mediapipe_spread"]):
        landmarks["mediapipe"] = embed_triangles(faces, data["mediapipe_triangles"].astype(np.int64), data["mediapipe_barycentrics"])
        spread["mediapipe"] = torch.from_numpy(data["mediapipe_spread"])
    regressor, weights = _joints(vertices, parts, data["neck"], data["jaw"])
    return Rig(
        name="procedural",
        spec={"name": "procedural", "version": VERSION},
        template=torch.from_numpy(vertices),
        shape_basis=_offsets(data["shape_offsets"], data["shape_scale"]),
        expr_basis=_offsets(data["expression_offsets"], data["expression_scale"]),
        faces=torch.from_numpy(faces),
        uvs=torch.from_numpy(data["uvs"]),
        uv_faces=torch.from_numpy(data["uv_faces"].astype(np.int64)),
        joint_regressor=torch.from_numpy(regressor.astype(np.float32)),
        skin_weights=torch.from_numpy(weights.astype(np.float32)),
        regions=head_regions(vertices, vertices[data["ibug68_vertices"]], _region_parts(parts) | {"lips": data["lips"]}),
        landmarks=landmarks,
        landmark_spread=spread,
        expression_names=tuple(str(n) for n in data["expression_names"]),
    )


def _offsets(steps: np.ndarray, scale: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray((steps * scale[:, None, None]).transpose(0, 2, 1), np.float32))


def _joints(vertices: np.ndarray, parts: dict[str, np.ndarray], neck: np.ndarray, jaw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint regressor [J, V] and skin weights [V, J]."""
    skin, y = parts["skin"], vertices[:, 1]
    around = {
        "root": skin & (y < -0.125),
        "neck": skin & (np.abs(y + 0.04) < 0.03) & (vertices[:, 2] < 0.04),
        "jaw": skin & (np.abs(y) < 0.03) & (np.abs(vertices[:, 2] - 0.005) < 0.04),
        "left_eye": parts["left_eye"],
        "right_eye": parts["right_eye"],
    }
    regressor = np.stack([affine_regressor(vertices, around[name], np.array(_JOINTS[name])) for name in JOINT_NAMES])
    weights = np.stack([1 - neck, neck * (1 - jaw), neck * jaw, np.zeros_like(neck), np.zeros_like(neck)], -1)
    for name in ("left_eye", "right_eye"):
        weights[parts[name]] = np.eye(len(JOINT_NAMES))[JOINT_NAMES.index(name)]
    return regressor, weights


def _region_parts(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ears = parts["left_ear"] | parts["right_ear"]
    return {
        "skin": parts["skin"] | parts["lids"] | ears,
        "ears": ears,
        "mouth": parts["mouth"] | parts["tongue"],
        "teeth": parts["upper_teeth"] | parts["lower_teeth"],
        "left_eye": parts["left_eye"],
        "right_eye": parts["right_eye"],
    }
