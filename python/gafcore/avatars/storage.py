"""An avatar as a folder: GaussianAvatars' .ply and flame_param.npz, and a manifest that names the rig and seals the files.

avatar.json                                        manifest: format, rig, degree, SHA-256 of the files
point_cloud/iteration_N/point_cloud.ply            Gaussians, local to the triangles
point_cloud/iteration_N/flame_param.npz            rig parameters over time, under FLAME's names
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gafcore.avatars.ply import read_ply, write_ply
from gafcore.avatars.rigged import RiggedAvatar
from gafcore.captures.arrays import read_npz
from gafcore.errors import GafError, InputError, MissingError
from gafcore.files import atomic_path, inside, read_json, write_json
from gafcore.rigs import Rig, load_rig
from gafcore.rigs.load import local_spec, portable_spec
from gafcore.types import RigParams

FORMAT = "gafcore-avatar"
FORMAT_VERSION = 1
_WIDTHS = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}


def save_avatar(avatar: RiggedAvatar, folder: str | Path, *, iteration: int = 0, info: dict[str, Any] | None = None) -> Path:
    """Write `avatar` into `folder`. Each file is replaced whole, the manifest last.

    Args:
        avatar: What to save.
        folder: Created if needed; other files in it stay.
        iteration: Number in the path of the .ply, as GaussianAvatars writes it.
        info: Kept in the manifest as it is (JSON values), e.g. how the avatar was made.

    Returns:
        The manifest's path.

    Raises:
        InputError: A tensor holds NaN or infinity; nothing is written.
    """
    folder = Path(folder)
    for name, x in (*avatar.parameters().items(), *avatar.params.items()):
        if x is not None and not bool(x.isfinite().all()):
            raise InputError(f"{folder}: avatar not saved: its {name} holds NaN or infinity")
    ply = f"point_cloud/iteration_{iteration}/point_cloud.ply"
    params = f"point_cloud/iteration_{iteration}/flame_param.npz"
    write_ply(folder / ply, {**avatar.parameters(), "binding": avatar.binding})
    write_params(folder / params, avatar.params)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "kind": "rigged",
        "rig": portable_spec(avatar.rig, folder),
        "n_gaussians": len(avatar),
        "n_timesteps": len(avatar.params),
        "sh_degree": avatar.sh_degree,
        "gaussians": ply,
        "params": params,
        "sha256": {name: _sha256(folder / name) for name in (ply, params)},
        "info": info or {},
    }
    write_json(folder / "avatar.json", manifest)
    return folder / "avatar.json"


def load_avatar(folder: str | Path, *, device: torch.device | str = "cpu") -> RiggedAvatar:
    """The avatar in `folder`; renders the same bits as the one that was saved.

    Raises:
        MissingError: A file is absent.
        InputError: A file is damaged, was changed, or does not fit the rig; the message names file and field.
    """
    folder = Path(folder)
    path = folder / "avatar.json"
    manifest = read_manifest(folder)
    rig = _rig(path, local_spec(manifest["rig"], folder), device)
    files = {field: _named(path, field, manifest[field]) for field in ("gaussians", "params")}
    for name, expected in manifest["sha256"].items():
        found = _sha256(_named(path, "sha256", name))
        if found != expected:
            raise InputError(f"{folder / name}: does not match its SHA-256 in {path}: damaged or changed since it was saved")
    degree = manifest["sh_degree"]
    tensors = read_ply(files["gaussians"], rig.faces.shape[0])
    params = read_params(files["params"], rig)
    for field, count in (("n_gaussians", tensors["binding"].shape[0]), ("n_timesteps", len(params))):
        if manifest[field] != count:
            raise InputError(f"{path}: {field} is {manifest[field]}, but the files hold {count}")
    tensors["sh"] = tensors["sh"][:, : (degree + 1) ** 2].contiguous()
    return RiggedAvatar(rig=rig, params=params.to(device), sh_degree=degree, **{k: v.to(device) for k, v in tensors.items()})


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """avatar.json, with the type of every field checked.

    Raises:
        MissingError: `folder` holds no avatar.
        InputError: A field is missing or has the wrong type.
    """
    path = Path(folder) / "avatar.json"
    if not path.is_file():
        raise MissingError(f"{folder}: no avatar here (avatar.json is missing); `gafcore fit` writes one")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: 'format' must be {FORMAT!r}; this is not an avatar's manifest")
    if manifest.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: 'version' must be {FORMAT_VERSION}, got {manifest.get('version')!r}; another gafcore wrote it")
    types = {"rig": dict, "sha256": dict, "gaussians": str, "params": str, "sh_degree": int, "n_gaussians": int, "n_timesteps": int}
    for name, kind in types.items():
        if not isinstance(manifest.get(name), kind) or isinstance(manifest.get(name), bool):
            raise InputError(f"{path}: {name!r} must be {kind.__name__}, got {manifest.get(name)!r}")
    if not 0 <= manifest["sh_degree"] <= 3:
        raise InputError(f"{path}: 'sh_degree' must be 0 to 3, got {manifest['sh_degree']}")
    return manifest


def write_params(path: str | Path, params: RigParams) -> None:
    """Rig parameters as an .npz under FLAME's names: the motion file that GaussianAvatars reads and writes."""
    arrays: dict[str, Any] = {name: x.detach().cpu().numpy() for name, x in params.items() if x is not None}
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def read_params(path: str | Path, rig: Rig) -> RigParams:
    """Rig parameters from an .npz; further arrays are ignored, `dynamic_offset` is refused unless zero.

    Raises:
        MissingError: There is no such file.
        InputError: An array is missing, not finite, or does not fit `rig`; names file and array.
    """
    shared: dict[str, tuple[int | None, ...]] = {"shape": (rig.n_shape,), "static_offset": (rig.n_vertices, 3)}
    one = {name: [shape, (1, *shape)] for name, shape in shared.items()}  # VHAP writes some of them with a leading 1
    moving: dict[str, tuple[int | None, ...]] = {"expr": (None, rig.n_expr), **{name: (None, width) for name, width in _WIDTHS.items()}}
    offsets: list[tuple[int | None, ...]] = [(rig.n_vertices, 3), (None, rig.n_vertices, 3)]
    arrays = read_npz(Path(path), {**moving, "shape": one["shape"]}, {"static_offset": one["static_offset"], "dynamic_offset": offsets})
    if np.any(arrays.get("dynamic_offset", 0)):
        raise InputError(f"{path}: array 'dynamic_offset' is not supported; only offsets that stay the same over time are")
    for name in _WIDTHS:
        if len(arrays[name]) != len(arrays["expr"]):
            raise InputError(f"{path}: array {name!r} has {len(arrays[name])} timesteps, but 'expr' has {len(arrays['expr'])}")
    values = {name: torch.from_numpy(arrays[name]) for name in moving}
    values |= {name: torch.from_numpy(arrays[name].reshape(shape)) for name, shape in shared.items() if name in arrays}
    return RigParams(**values)


def _rig(path: Path, spec: dict[str, Any], device: torch.device | str) -> Rig:
    try:
        return load_rig(spec, device=device)
    except GafError as error:
        raise type(error)(f"{path}: 'rig': {error}") from None
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: 'rig' is not the description of a rig ({error})") from None


def _named(path: Path, field: str, name: str) -> Path:
    """The file that a field of the manifest at `path` names."""
    try:
        file = inside(path.parent, name)
    except (InputError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {field!r}: {error}") from None
    if not file.is_file():
        raise MissingError(f"{path}: {field!r} names {file}, which does not exist")
    return file


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
