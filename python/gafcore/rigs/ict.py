"""ICT-FaceKit as a rig: parts chosen, metres, joints and skin weights of ours, ARKit names, one texture atlas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gafcore.errors import InputError
from gafcore.rigs.base import JOINT_NAMES, Rig
from gafcore.rigs.ict_files import IctModel, fingerprint, read_model
from gafcore.rigs.joints import affine_regressor, smoothstep
from gafcore.rigs.landmarks import embed_triangles, embed_vertices
from gafcore.rigs.regions import head_regions
from gafcore.types import LandmarkEmbedding

# First vertex and first face of each part; the next part's start ends it (ICT-FaceKit's documentation).
_PARTS = {
    "face": (0, 0), "head": (9409, 9230), "mouth_socket": (11248, 11144), "eye_sockets": (13294, 13226), "gums": (14062, 14034),
    "teeth": (17039, 17006), "left_eye": (21451, 21496), "right_eye": (23021, 23094), "fluids": (24591, 24692), "eyelashes": (25351, 25304),
}  # fmt: skip
_N_VERTICES, _N_FACES = 26719, 26384
PART_NAMES = tuple(_PARTS)
DEFAULT_PARTS = tuple(p for p in PART_NAMES if p not in ("fluids", "eyelashes"))

_CM = 0.01
_ORIGIN_CM = np.array([0.0, 0.0, 2.0])  # the middle of the head: skull and neck pivot end up near the origin
# Where our joints go, in the model's own centimetres: base of the neck, skull on the atlas, jaw hinge, centres of the eyeballs.
_JOINTS_CM = {
    "root": (0, -15, -2),
    "neck": (0, -4, -1),
    "jaw": (0, -0.5, 2),
    "left_eye": (3.2, 3.62, 8.44),
    "right_eye": (-3.2, 3.62, 8.44),
}
_NECK_BAND_CM = (-15.5, -7.0)  # the head's rotation fades out between these heights

# The files put every material in a UV tile of its own; here each gets a square of the unit square: corner, side.
_ATLAS = {
    "face": (0.0, 0.36, 0.64), "head": (0.64, 0.64, 0.36), "mouth_socket": (0.64, 0.64, 0.36), "eye_sockets": (0.64, 0.64, 0.36),
    "teeth": (0.64, 0.36, 0.28), "left_eye": (0.0, 0.0, 0.32), "right_eye": (0.32, 0.0, 0.32), "gums": (0.64, 0.0, 0.32),
    "fluids": (0.92, 0.36, 0.08), "eyelashes": (0.92, 0.44, 0.08),
}  # fmt: skip


def load_ict(path: str | Path, parts: Sequence[str] = DEFAULT_PARTS, sha256: str | None = None) -> Rig:
    """ICT-FaceKit from a packed npz or a FaceXModel folder.

    Args:
        path: File or folder.
        parts: Which of `PART_NAMES` to keep.
        sha256: What the file must hash to, if known.

    Raises:
        MissingError: Nothing at `path`.
        InputError: Not this model, an unknown part, or another hash.
    """
    unknown = [p for p in parts if p not in _PARTS]
    if unknown or "face" not in parts:
        raise InputError(f"ict parts must include 'face' and be of {list(PART_NAMES)}, got {list(parts)}")
    path = Path(path).absolute()
    digest = fingerprint(path)
    if sha256 is not None and digest != sha256:
        raise InputError(f"{path}: this is not the rig that was saved: SHA-256 {digest[:12]}..., expected {sha256[:12]}...")
    return _build(path, tuple(p for p in PART_NAMES if p in parts), digest)


@lru_cache(maxsize=2)
def _build(path: Path, parts: tuple[str, ...], digest: str) -> Rig:
    model = read_model(path)
    if model.vertices.shape[0] != _N_VERTICES or model.faces.shape[0] != _N_FACES:
        got = f"{model.vertices.shape[0]} vertices and {model.faces.shape[0]} faces"
        raise InputError(f"{path}: ICT-FaceKit Light has {_N_VERTICES} vertices and {_N_FACES} faces, got {got}")
    old_faces, uv_old_faces, face_part = _triangulate(model, parts)
    kept, faces = np.unique(old_faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    uvs, uv_faces = _atlas(model, uv_old_faces, face_part)
    part_of = _part_of_vertex()[kept]
    cm = model.vertices[kept]
    template = ((cm - _ORIGIN_CM) * _CM).astype(np.float32)
    landmarks, spread = _landmarks(faces, kept)
    points68 = template[faces[landmarks["ibug68"].faces.numpy()]]
    points68 = (points68 * landmarks["ibug68"].barycentrics.numpy()[..., None]).sum(1)
    regressor, weights = _joints(cm, part_of)

    def basis(offsets: np.ndarray) -> torch.Tensor:
        # Row-major, whatever layout the selection chose: blending flattens the mesh, which must not copy it at every call.
        return torch.from_numpy(np.ascontiguousarray(offsets[:, kept], np.float32)).mul_(_CM)

    return Rig(
        name="ict",
        spec=_spec(path, parts, digest),
        template=torch.from_numpy(template),
        shape_basis=basis(model.identity),
        expr_basis=basis(model.expression),
        faces=torch.from_numpy(faces),
        uvs=torch.from_numpy(uvs),
        uv_faces=torch.from_numpy(uv_faces),
        joint_regressor=torch.from_numpy(regressor.astype(np.float32)),
        skin_weights=torch.from_numpy(weights.astype(np.float32)),
        regions=head_regions(template, points68, _part_masks(cm, part_of)),
        landmarks=landmarks,
        landmark_spread=spread,
        expression_names=tuple(arkit_name(n) for n in model.expression_names),
    )


def arkit_name(name: str) -> str:
    """ICT writes `browDown_L`, ARKit `browDownLeft`."""
    return {"_L": name[:-2] + "Left", "_R": name[:-2] + "Right"}.get(name[-2:], name)


def _spec(path: Path, parts: tuple[str, ...], digest: str) -> dict[str, Any]:
    return {"name": "ict", "path": str(path), "sha256": digest, "parts": list(parts)}


def _part_of_vertex() -> np.ndarray:
    """Number of each vertex's part in `PART_NAMES`, [V]."""
    starts = [v for v, _ in _PARTS.values()]
    return np.searchsorted(starts, np.arange(_N_VERTICES), side="right") - 1


def _triangulate(model: IctModel, parts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of the chosen parts: corners, UV corners [F, 3], part number [F]."""
    starts = [f for _, f in _PARTS.values()]
    part = np.searchsorted(starts, np.arange(len(model.faces)), side="right") - 1
    keep = np.isin(part, [PART_NAMES.index(p) for p in parts])
    quads, uv_quads, part = model.faces[keep], model.uv_faces[keep], part[keep]
    full = quads[:, 3] >= 0
    order = np.argsort(np.concatenate([np.arange(len(quads)), np.nonzero(full)[0]]), kind="stable")  # both halves of a quad side by side

    def split(q: np.ndarray) -> np.ndarray:
        return np.concatenate([q[:, [0, 1, 2]], q[full][:, [0, 2, 3]]])[order]

    return split(quads), split(uv_quads), np.concatenate([part, part[full]])[order]


def _atlas(model: IctModel, uv_faces: np.ndarray, face_part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UVs in the unit square. A UV vertex that two materials share is doubled."""
    corners = model.uvs[uv_faces]  # [F, 3, 2]
    tile = np.floor(corners.mean(1, keepdims=True))
    rect = np.array([_ATLAS[p] for p in PART_NAMES], np.float32)[face_part]
    placed = rect[:, None, :2] + np.clip(corners - tile, 0, 1) * rect[:, None, 2:]
    square = np.array([list(_ATLAS.values()).index(_ATLAS[p]) for p in PART_NAMES])[face_part]
    keys = uv_faces + square[:, None] * len(model.uvs)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    return placed.reshape(-1, 2)[first].astype(np.float32), index.reshape(-1, 3)


def _joints(cm: np.ndarray, part_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint regressor [J, V] and skin weights [V, J]. The jaw joint moves nothing: here the jaw is the linear shape `jawOpen`."""
    skin = part_of <= PART_NAMES.index("head")
    eyes = {side: part_of == PART_NAMES.index(side) for side in ("left_eye", "right_eye")}
    around = {
        "root": skin & (cm[:, 1] < -13),
        "neck": skin & (np.abs(cm[:, 1] + 4) < 3) & (cm[:, 2] < 4),
        "jaw": skin & (np.abs(cm[:, 1]) < 3) & (np.abs(cm[:, 2] - 2) < 3),
        **eyes,
    }
    regressor = np.zeros((len(JOINT_NAMES), len(cm)))
    origin_to = (np.array(list(_JOINTS_CM.values())) - _ORIGIN_CM) * _CM
    metres = (cm - _ORIGIN_CM) * _CM
    for j, name in enumerate(JOINT_NAMES):
        chosen = around[name] if around[name].sum() >= 8 else skin  # the part may have been left out
        regressor[j] = affine_regressor(metres, chosen, origin_to[j])
    height = cm[:, 1] + 0.12 * (cm[:, 2] - 3)  # the band rises towards the nape, so that the chin moves whole
    head = np.where(skin, smoothstep(height, *_NECK_BAND_CM), 1.0)
    weights = np.zeros((len(cm), len(JOINT_NAMES)))
    weights[:, 0], weights[:, 1] = 1 - head, head
    for side, mask in eyes.items():
        weights[mask] = 0
        weights[mask, JOINT_NAMES.index(side)] = 1
    return regressor, weights


def _part_masks(cm: np.ndarray, part_of: np.ndarray) -> dict[str, np.ndarray]:
    part = {name: part_of == i for i, name in enumerate(PART_NAMES)}
    skin = part["face"] | part["head"]
    x, y, z = np.abs(cm[:, 0]), cm[:, 1], cm[:, 2]
    return {
        "skin": skin,
        "ears": skin & (x > 7.1) & (((y - 0.4) / 4.2) ** 2 + ((z + 0.5) / 2.9) ** 2 < 1),
        "mouth": part["mouth_socket"] | part["gums"],
        "teeth": part["teeth"],
        "left_eye": part["left_eye"],
        "right_eye": part["right_eye"],
    }


def _landmarks(faces: np.ndarray, kept: np.ndarray) -> tuple[dict[str, LandmarkEmbedding], dict[str, torch.Tensor]]:
    """Our stored tables, renumbered to the kept vertices. Points on parts that were left out are dropped."""
    new = np.full(_N_VERTICES, -1)
    new[kept] = np.arange(len(kept))
    with (
        resources.files("gafcore.rigs.data").joinpath("ict_landmarks.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as data,
    ):
        table = dict(data)
    triangles = new[table["mediapipe_triangles"]]
    on_mesh = (triangles >= 0).all(1)
    numbers = np.nonzero(on_mesh)[0]
    mediapipe = embed_triangles(faces, triangles[on_mesh], table["mediapipe_barycentrics"][on_mesh].astype(np.float32), numbers)
    spread = torch.from_numpy(table["mediapipe_spread"][on_mesh].astype(np.float32))
    landmarks = {"ibug68": embed_vertices(faces, new[table["ibug68_vertices"]]), "mediapipe": mediapipe}
    return landmarks, {"mediapipe": spread}
