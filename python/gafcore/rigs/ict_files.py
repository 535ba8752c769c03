"""Reading ICT-FaceKit: the packed npz, or its FaceXModel folder of OBJ files. Units as in the files: cm, y up, z out of the face."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gafcore.errors import InputError, MissingError
from gafcore.files import check_name

_NEUTRAL = "generic_neutral_mesh.obj"
_HOW_TO_GET = "ICT-FaceKit's FaceXModel folder is at https://github.com/ICT-VGL/ICT-FaceKit (MIT)"


@dataclass(frozen=True)
class IctModel:
    """The data of the model, all parts. Faces are quads; -1 in the fourth column marks a triangle."""

    vertices: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 4] int64
    uvs: np.ndarray  # [Vt, 2] float32
    uv_faces: np.ndarray  # [F, 4] int64
    identity: np.ndarray  # [S, V, 3] float16 or float32 offsets
    expression: np.ndarray  # [E, V, 3]
    expression_names: tuple[str, ...]


def read_model(path: str | Path) -> IctModel:
    """Read a packed npz or a FaceXModel folder.

    Raises:
        MissingError: Nothing at `path`.
        InputError: Not such a file or folder; the message names file and field.
    """
    check_name(path)
    path = Path(path)
    if path.is_dir():
        model, path = _read_folder(path), path / _NEUTRAL
    elif path.is_file():
        model = _read_npz(path)
    else:
        raise MissingError(f"{path}: no such file or folder; {_HOW_TO_GET}")
    _check_topology(path, model)
    return model


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the npz, or of the folder's neutral mesh: tells whether a saved rig is the one it was saved with."""
    path = Path(path)
    file = path / _NEUTRAL if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise MissingError(f"{file}: cannot be read ({error.strerror}); {_HOW_TO_GET}") from None


def _read_npz(path: Path) -> IctModel:
    data = _arrays(path)
    field = _Fields(path, data)
    vertices = field.floats("v", (None, 3)).astype(np.float32)
    n = len(vertices)
    names = field.get("expression_names")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: expression_names must be a list of text, got {names.dtype} {list(names.shape)}")
    return IctModel(
        vertices=vertices,
        faces=field.integers("faces", (None, 4)),
        uvs=field.floats("vt", (None, 2)).astype(np.float32),
        uv_faces=field.integers("faces_uv", (None, 4)),
        identity=field.floats("identity", (None, n, 3)),
        expression=field.floats("expression", (len(names), n, 3)),
        expression_names=tuple(str(x) for x in names),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            with archive:
                return {key: archive[key] for key in archive.files}
    except Exception as error:  # numpy, zipfile, zlib and struct fail on damaged files each in its own way
        raise InputError(f"{path}: not readable as an npz archive without pickles ({type(error).__name__}: {error})") from None
    raise InputError(f"{path}: expected an npz archive of arrays by name, got a single array")


class _Fields:
    """Arrays of an archive, checked as they are taken."""

    def __init__(self, path: Path, data: dict[str, np.ndarray]):
        self.path, self.data = path, data

    def get(self, key: str) -> np.ndarray:
        if key not in self.data:
            raise InputError(f"{self.path}: no field {key!r}; it has {sorted(self.data)}")
        return self.data[key]

    def floats(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        array = self._shaped(key, shape, "f")
        if not np.isfinite(array).all():
            raise InputError(f"{self.path}: {key} holds NaN or infinite values")
        return array

    def integers(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        return self._shaped(key, shape, "iu").astype(np.int64)

    def _shaped(self, key: str, shape: tuple[int | None, ...], kinds: str) -> np.ndarray:
        array = self.get(key)
        fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
        if not fits or array.dtype.kind not in kinds:
            want = "[" + ", ".join("*" if s is None else str(s) for s in shape) + "]"
            raise InputError(f"{self.path}: {key} must be {want} of kind {'/'.join(kinds)}, got {list(array.shape)} {array.dtype}")
        return array


def _read_folder(folder: Path) -> IctModel:
    if not (folder / _NEUTRAL).is_file():
        raise MissingError(f"{folder}: no {_NEUTRAL} in it; {_HOW_TO_GET}")
    vertices, uvs, faces, uv_faces = read_obj(folder / _NEUTRAL)
    shapes = sorted(p for p in folder.glob("*.obj") if p.name != _NEUTRAL)
    identity = [p for p in shapes if p.stem.startswith("identity") and p.stem[len("identity") :].isdigit()]
    expression = [p for p in shapes if p not in set(identity) and "neutral" not in p.stem]
    if not identity or not expression:
        raise InputError(f"{folder}: needs identityNNN.obj and expression OBJ files, got {len(identity)} and {len(expression)}")

    def offsets(paths: list[Path]) -> np.ndarray:
        out = np.empty((len(paths), *vertices.shape), np.float32)
        for i, p in enumerate(paths):
            shape = read_obj_vertices(p)
            if shape.shape != vertices.shape:
                raise InputError(f"{p}: {len(shape)} vertices, but {_NEUTRAL} has {len(vertices)}")
            out[i] = shape - vertices
        return out

    return IctModel(vertices, faces, uvs, uv_faces, offsets(identity), offsets(expression), tuple(p.stem for p in expression))


def read_obj_vertices(path: Path) -> np.ndarray:
    """Only the positions of an OBJ file, [V, 3] float32."""
    return _numbers(path, [line[2:] for line in _lines(path) if line.startswith("v ")], 3)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions [V, 3], texture coordinates [Vt, 2], faces and UV faces [F, 4] counted from zero; -1 for the missing fourth corner."""
    lines = _lines(path)
    vertices = _numbers(path, [line[2:] for line in lines if line.startswith("v ")], 3)
    uvs = _numbers(path, [" ".join(line.split()[1:3]) for line in lines if line.startswith("vt ")], 2)
    corners = []
    for line in lines:
        if line.startswith("f "):
            parts = [corner.split("/") for corner in line.split()[1:]]
            if len(parts) not in (3, 4) or any(len(p) < 2 for p in parts):
                raise InputError(f"{path}: faces must be triangles or quads of v/vt, got {line.strip()[:60]!r}")
            corners.append(parts + [["0", "0"]] * (4 - len(parts)))
    try:
        table = np.array([[[int(c[0]), int(c[1])] for c in face] for face in corners], np.int64).reshape(-1, 4, 2) - 1
    except (ValueError, OverflowError):
        raise InputError(f"{path}: a face holds something that is not a number, or a number that no mesh reaches") from None
    return vertices, uvs, table[..., 0], table[..., 1]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="strict").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as an OBJ file ({error})") from None


def _numbers(path: Path, rows: list[str], columns: int) -> np.ndarray:
    try:
        table = np.array([row.split()[:columns] for row in rows], np.float32).reshape(-1, columns)
    except ValueError:
        raise InputError(f"{path}: a vertex line does not hold {columns} numbers") from None
    if not np.isfinite(table).all():
        raise InputError(f"{path}: NaN or infinite coordinates")
    return table


def _check_topology(path: Path, model: IctModel) -> None:
    for name, faces, n in (("faces", model.faces, len(model.vertices)), ("faces_uv", model.uv_faces, len(model.uvs))):
        if faces.shape[0] != model.faces.shape[0]:
            raise InputError(f"{path}: {name} has {faces.shape[0]} rows, faces has {model.faces.shape[0]}")
        low = faces[:, :3].min(initial=0)
        if low < 0 or faces.min(initial=0) < -1 or faces.max(initial=-1) >= n:
            raise InputError(f"{path}: {name} points outside 0..{n - 1}")
