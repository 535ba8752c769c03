"""The multi-view head diffusion prior (GAF, section 4): one picture and the rig's normal maps become views from other sides.

Nothing here imports diffusers until a name that needs it is asked for, so that `import gafcore` stays light.
"""

from importlib import import_module
from typing import Any

from gafcore.diffusion.sample import ViewSample, collate

_LATER: dict[str, str] = {}
__all__ = ["ViewSample", "collate", *_LATER]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'gafcore.diffusion' has no attribute {name!r}")
