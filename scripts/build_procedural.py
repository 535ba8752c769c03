"""Build python/gafcore/rigs/data/procedural.npz: sculpt the head, its identity modes and its expressions, and find its landmarks.

    python scripts/build_procedural.py [face_landmarker.task]

Without MediaPipe's model the MediaPipe points of the present file are kept where the mesh is the same, and dropped where it changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sculpt.expressions import expressions
from sculpt.head import LABELS, build_head
from sculpt.identity import identity_modes
from sculpt.motion import Moving, prepare

from gafcore.files import atomic_path

OUT = Path(__file__).parent.parent / "python/gafcore/rigs/data/procedural.npz"
_CM = 0.01
_UNIT_M = 1e-6  # offsets are stored as int16 of this; a mode's largest offset decides its own multiple


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("landmarker", type=Path, nargs="?")
    parser.add_argument("--renders", type=int, default=300)
    args = parser.parse_args()
    arrays = _arrays(prepare(build_head()))
    _keep_landmarks(arrays)
    _write(arrays)
    if args.landmarker is not None:
        from mediapipe_correspondence import correspond

        from gafcore.rigs.procedural import load_procedural

        found = correspond(load_procedural(), args.landmarker, args.renders)
        arrays["mediapipe_triangles"] = found.triangles.astype(np.uint16)
        arrays["mediapipe_barycentrics"] = found.barycentrics.astype(np.float32)
        arrays["mediapipe_spread"] = found.spread.astype(np.float32)
        _write(arrays)
        print(found.summary(args.renders))
    print(f"{OUT.name}: {len(arrays['vertices'])} vertices, {len(arrays['faces'])} faces, {OUT.stat().st_size / 1024:.0f} KiB")


def _arrays(moving: Moving) -> dict[str, np.ndarray]:
    head = moving.head
    shapes, moves = identity_modes(moving), expressions(moving)
    shape_offsets, shape_scale = _quantized(np.stack(list(shapes.values())) * _CM)
    expr_offsets, expr_scale = _quantized(np.stack(list(moves.values())) * _CM)
    return {
        "vertices": (head.vertices * _CM).astype(np.float32),
        "faces": head.faces.astype(np.uint16),
        "uvs": head.uvs.astype(np.float32),
        "uv_faces": head.uv_faces.astype(np.uint16),
        "label": head.label.astype(np.uint8),
        "label_names": np.array(LABELS),
        "lips": head.lips,
        "jaw": moving.jaw.astype(np.float32),
        "neck": moving.neck.astype(np.float32),
        "twin": moving.twin.astype(np.uint16),
        "shape_names": np.array(list(shapes)),
        "shape_offsets": shape_offsets,
        "shape_scale": shape_scale,
        "expression_names": np.array(list(moves)),
        "expression_offsets": expr_offsets,
        "expression_scale": expr_scale,
        "ibug68_vertices": head.landmarks.astype(np.uint16),
        "mediapipe_triangles": np.zeros((0, 3), np.uint16),
        "mediapipe_barycentrics": np.zeros((0, 3), np.float32),
        "mediapipe_spread": np.zeros(0, np.float32),
    }


def _keep_landmarks(arrays: dict[str, np.ndarray]) -> None:
    if not OUT.exists():
        return
    with np.load(OUT, allow_pickle=False) as present:
        if np.array_equal(present["faces"], arrays["faces"]) and np.allclose(present["vertices"], arrays["vertices"], atol=1e-6):
            arrays.update({key: present[key] for key in present.files if key.startswith("mediapipe_")})


def _quantized(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int16 offsets [K, 3, V] (axes apart, which packs better) and metres per step [K]: a micrometre, or what 16 bits need."""
    scale = np.maximum(np.abs(offsets).max((1, 2)) / 32767, _UNIT_M)
    return np.round(offsets / scale[:, None, None]).astype(np.int16).transpose(0, 2, 1), scale.astype(np.float32)


def _write(arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(OUT) as path:
        np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
