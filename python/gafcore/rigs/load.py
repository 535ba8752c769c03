"""Choosing a rig by name, and saving which rig it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gafcore.errors import InputError
from gafcore.files import read_json, write_json
from gafcore.rigs.base import Rig
from gafcore.rigs.ict import DEFAULT_PARTS, load_ict
from gafcore.rigs.procedural import load_procedural

_KNOWN = "'procedural' and 'ict:PATH'"


def load_rig(spec: str | Mapping[str, Any], *, device: torch.device | str = "cpu") -> Rig:
    """A rig by its description.

    Args:
        spec: "procedural", "ict:PATH" (packed npz or FaceXModel folder), or the dict of `Rig.spec`.
        device: Where its tensors go.

    Raises:
        MissingError: A file it needs is absent.
        InputError: Unknown rig, malformed description, wrong file.
    """
    fields = _parse(spec) if isinstance(spec, str) else spec
    if not isinstance(fields, Mapping):
        raise InputError(f"a rig is described by text or by a dict, got {type(spec).__name__}")
    name = fields.get("name")
    allowed = {"procedural": {"name", "version"}, "ict": {"name", "path", "sha256", "parts"}}
    if not isinstance(name, str) or name not in allowed:
        raise InputError(f"unknown rig {name!r}; known are {_KNOWN}")
    extra = sorted(set(fields) - allowed[name])
    if extra:
        raise InputError(f"rig {name!r} does not know {extra}; its fields are {sorted(allowed[name])}")
    rig = load_procedural(fields.get("version")) if name == "procedural" else _load_ict(fields)
    return rig if torch.device(device).type == "cpu" else rig.to(device)


def _parse(text: str) -> dict[str, Any]:
    name, colon, path = text.partition(":")
    if name == "ict":
        if not path:
            raise InputError("rig 'ict' needs its file or folder: ict:PATH")
        return {"name": "ict", "path": str(Path(path).expanduser())}
    if name == "procedural" and not colon:
        return {"name": "procedural"}
    raise InputError(f"unknown rig {text!r}; known are {_KNOWN}")


def _load_ict(fields: Mapping[str, Any]) -> Rig:
    path, parts, digest = fields.get("path"), fields.get("parts", list(DEFAULT_PARTS)), fields.get("sha256")
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"rig 'ict': path must be text, got {path!r}")
    if not isinstance(parts, (list, tuple)) or not all(isinstance(p, str) for p in parts):
        raise InputError(f"rig 'ict': parts must be a list of names, got {parts!r}")
    if digest is not None and not isinstance(digest, str):
        raise InputError(f"rig 'ict': sha256 must be text, got {digest!r}")
    return load_ict(path, parts, digest)


def write_spec(path: str | Path, rig: Rig) -> None:
    """Write `rig.spec` as JSON; a file it names is written relative to the JSON, so that the two can move together."""
    write_json(path, portable_spec(rig, Path(path).parent))


def read_spec(path: str | Path) -> dict[str, Any]:
    """The description in a file of `write_spec`, ready for `load_rig`.

    Raises:
        InputError: Not such a file.
    """
    spec = read_json(path)
    if not isinstance(spec, dict):
        raise InputError(f"{path}: expected a JSON object that describes a rig, got {type(spec).__name__}")
    return local_spec(spec, Path(path).parent)


def portable_spec(rig: Rig, folder: str | Path) -> dict[str, Any]:
    """`rig.spec` for a document in `folder`: a file it names is given relative to it, so that the two can move together."""
    spec = dict(rig.spec)
    return {**spec, "path": os.path.relpath(spec["path"], Path(folder).absolute())} if "path" in spec else spec


def local_spec(spec: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """What `portable_spec` gave, for `load_rig`; an absolute path stays as it is."""
    path = spec.get("path")
    return {**spec, "path": os.path.normpath(Path(folder).absolute() / path)} if isinstance(path, str) and path else dict(spec)
