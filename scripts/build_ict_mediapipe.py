"""Build python/gafcore/rigs/data/ict_landmarks.npz: iBUG-68 and MediaPipe landmarks on ICT-FaceKit, in its own vertex numbers.

python scripts/build_ict_mediapipe.py ICT.npz vertex_indices.json face_landmarker.task
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from mediapipe_correspondence import correspond

from gafcore.files import atomic_path
from gafcore.rigs.ict import load_ict

OUT = Path(__file__).parent.parent / "python/gafcore/rigs/data/ict_landmarks.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rig", type=Path)
    parser.add_argument("vertex_indices", type=Path)
    parser.add_argument("landmarker", type=Path)
    parser.add_argument("--renders", type=int, default=300)
    args = parser.parse_args()
    ibug68 = json.loads(args.vertex_indices.read_text())["idx_to_landmark_verts"]
    rig = load_ict(args.rig)
    found = correspond(rig, args.landmarker, args.renders)
    print(found.summary(args.renders))
    with atomic_path(OUT) as path:
        np.savez_compressed(
            path,
            ibug68_vertices=np.array(ibug68, np.int32),
            mediapipe_triangles=found.triangles.astype(np.int32),  # the parts left out come last: numbers are the file's,
            mediapipe_barycentrics=found.barycentrics.astype(np.float32),
            mediapipe_spread=found.spread.astype(np.float32),
        )


if __name__ == "__main__":
    main()
