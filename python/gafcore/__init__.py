"""Animatable 3D Gaussian head avatars from monocular video."""

from importlib import import_module
from typing import Any

from gafcore.ops import bind_triangles, interpolate, linear_blend_skinning, photometric_loss, rasterization, rasterize_mesh

__version__ = "0.1.0"

# Where the names come from that most programs with only the kernels in mind never touch: imported when asked for.
_LATER = {
    "fit": "gafcore.fitting",
    "FitConfig": "gafcore.fitting",
    "evaluate": "gafcore.evaluation",
    "load_avatar": "gafcore.avatars",
    "save_avatar": "gafcore.avatars",
    "load_rig": "gafcore.rigs",
    "track": "gafcore.tracking",
    "TrackConfig": "gafcore.tracking",
}
__all__ = ["bind_triangles", "interpolate", "linear_blend_skinning", "photometric_loss", "rasterization", "rasterize_mesh", *_LATER]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'gafcore' has no attribute {name!r}")
