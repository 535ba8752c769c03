"""GaussianAvatars' .ply: one binary `vertex` element of floats, in the triangles' frames (reference: its `save_ply`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from gafcore.errors import InputError, MissingError
from gafcore.files import atomic_path

_REST = 45  # f_rest_*: 15 coefficients of degrees 1 to 3 for each channel, always written, as GaussianAvatars' reader expects
_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "dc": tuple(f"f_dc_{i}" for i in range(3)),
    "rest": tuple(f"f_rest_{i}" for i in range(_REST)),
    "opacity_logits": ("opacity",),
    "log_scales": tuple(f"scale_{i}" for i in range(3)),
    "quats": tuple(f"rot_{i}" for i in range(4)),
    "binding": ("binding_0",),
}
_LARGEST_EXACT = 2**24  # face ids are stored as float32


def write_ply(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write `means`, `quats`, `log_scales`, `opacity_logits`, `sh` and `binding` of an avatar.

    Raises:
        ValueError: A face id is too large to be stored as a float32.
    """
    n = tensors["binding"].shape[0]
    if n and int(tensors["binding"].max()) >= _LARGEST_EXACT:
        raise ValueError(f"binding must be < {_LARGEST_EXACT} to be stored as float32, got {int(tensors['binding'].max())}")
    values = {name: x.detach().cpu().float().reshape(n, len(_GROUPS[name])).numpy() for name, x in tensors.items() if name in _GROUPS}
    sh = tensors["sh"].detach().cpu().float()
    values["dc"] = sh[:, 0].numpy()
    rest = torch.zeros(n, 3, _REST // 3)
    rest[:, :, : sh.shape[1] - 1] = sh[:, 1:].transpose(1, 2)  # channel-major
    values["rest"] = rest.reshape(n, _REST).numpy()
    values["normals"] = np.zeros((n, 3), dtype=np.float32)
    table = np.empty(n, dtype=[(name, "<f4") for group in _GROUPS.values() for name in group])
    for group, names in _GROUPS.items():
        for i, name in enumerate(names):
            table[name] = values[group][:, i]
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(temporary))


def read_ply(path: str | Path, n_faces: int) -> dict[str, Tensor]:
    """What `write_ply` wrote, with `sh` of degree 3.

    Raises:
        MissingError: There is no such file.
        InputError: Not such a .ply, a property is missing or not finite, or a face id is not in 0..n_faces - 1; names file and property.
    """
    table = _vertices(Path(path))
    columns = {}
    for group, names in _GROUPS.items():
        if group != "normals":
            columns[group] = torch.from_numpy(np.stack([_column(path, table, name) for name in names], axis=1))
    n = table.shape[0]
    faces = columns["binding"][:, 0]
    bad = (faces != faces.round()) | (faces < 0) | (faces >= n_faces)
    if bool(bad.any()):
        raise InputError(f"{path}: binding_0 must be whole numbers in 0..{n_faces - 1}, got {float(faces[bad][0]):g}")
    rest = columns["rest"].reshape(n, 3, _REST // 3).transpose(1, 2)
    return {
        "means": columns["means"],
        "quats": columns["quats"],
        "log_scales": columns["log_scales"],
        "opacity_logits": columns["opacity_logits"][:, 0].clone(),
        "sh": torch.cat([columns["dc"][:, None], rest], dim=1),
        "binding": faces.long(),
    }


def _vertices(path: Path) -> np.ndarray:
    try:
        data = PlyData.read(str(path), mmap=False)
        return np.asarray(data["vertex"].data)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except KeyError:
        raise InputError(f"{path}: has no element 'vertex'") from None
    except (PlyParseError, ValueError, OSError, OverflowError, MemoryError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not readable as .ply ({error})") from None


def _column(path: str | Path, table: np.ndarray, name: str) -> np.ndarray:
    if name not in (table.dtype.names or ()):
        raise InputError(f"{path}: property {name!r} is missing; is this the .ply of a rigged avatar?")
    if table.dtype[name].kind not in "fiu":
        raise InputError(f"{path}: property {name!r} must be a number, got {table.dtype[name]}")
    column = table[name].astype(np.float32)
    if not np.isfinite(column).all():
        raise InputError(f"{path}: property {name!r} holds NaN or infinity")
    return column
