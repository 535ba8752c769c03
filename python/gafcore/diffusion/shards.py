"""Encoded samples on disk: webdataset tars of one safetensors file a sample, and an index with a checksum for each tar.

`shard-00000.tar` holds `<number>.safetensors` (tensors in half precision, cameras in single) and `<number>.json` (the key).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from gafcore.diffusion.encoded import EncodedSample
from gafcore.errors import InputError
from gafcore.files import atomic_path, inside, read_json, write_json

INDEX = "index.json"
FORMAT = 1
_EXACT = ("viewmats",)  # cameras keep single precision


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _to_bytes(sample: EncodedSample) -> bytes:
    tensors = {n: (x if n in _EXACT else x.half()).contiguous().cpu() for n, x in sample.tensors()}
    return save(tensors)


def write_shards(
    samples: Any,
    folder: str | Path,
    *,
    about: dict[str, Any],
    shard_size: int = 256,
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set of encoded samples. Interrupted, it goes on with the first shard that is not in the index.

    Args:
        samples: `__len__` and `__getitem__` giving `EncodedSample`; item i must always be the same.
        folder: Where to.
        about: What made them (autoencoder, condition, source); a folder that was begun with something else is refused.
        shard_size: Samples a tar.
        report: Called with samples done and in all.

    Raises:
        InputError: The folder was begun with other settings.
    """
    import webdataset

    folder = Path(folder)
    header = {"format": FORMAT, "samples": len(samples), "shard_size": shard_size, "about": about}
    index: dict[str, Any] = {**header, "shards": []}
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        differs = [k for k, v in header.items() if index.get(k) != v]
        if differs:
            given = "; ".join(f"{k} {index.get(k)!r}, now {header[k]!r}" for k in differs)
            raise InputError(f"{folder}: holds shards made differently ({given}); name another folder")
    for start in range(len(index["shards"]) * shard_size, len(samples), shard_size):
        name = f"shard-{start // shard_size:05d}.tar"
        numbers = range(start, min(start + shard_size, len(samples)))
        with atomic_path(folder / name, durable=True) as path, webdataset.TarWriter(str(path), mtime=0) as tar:
            for number in numbers:
                sample = samples[number]
                tar.write({"__key__": f"{number:09d}", "safetensors": _to_bytes(sample), "json": {"key": sample.key}})
                if report is not None:
                    report(number + 1, len(samples))
        entry = {"file": name, "samples": len(numbers), "bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        index["shards"].append(entry)
        write_json(folder / INDEX, index, durable=True)
    return folder / INDEX


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    size: int
    key: str


@dataclass
class ShardSet:
    """A folder of shards as a data set. Damaged shards are left out and named in `skipped`; what remains is numbered anew.

    Attributes:
        about: What made the shards.
        skipped: File and reason.
    """

    folder: Path
    verify: bool = True
    about: dict[str, Any] = field(init=False)
    skipped: dict[str, str] = field(init=False, default_factory=dict)
    _places: list[_Place] = field(init=False, default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        index = read_json(self.folder / INDEX)
        if not isinstance(index, dict) or index.get("format") != FORMAT or not isinstance(index.get("shards"), list):
            raise InputError(f"{self.folder / INDEX}: is no index of shards of format {FORMAT}")
        self.about = index.get("about", {})
        for entry in index["shards"]:
            if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
                raise InputError(f"{self.folder / INDEX}: every entry of 'shards' must name a 'file', got {str(entry)[:80]}")
            self._open(entry)
        if not self._places:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.skipped.items())
            raise InputError(f"{self.folder}: no shard can be used ({reasons or 'the index is empty'})")

    def _open(self, entry: dict[str, Any]) -> None:
        path = inside(self.folder, entry["file"])
        try:
            if path.stat().st_size != entry.get("bytes"):
                raise ValueError(f"{path.stat().st_size} bytes, {entry.get('bytes')} in the index")
            if self.verify and _sha256(path) != entry.get("sha256"):
                raise ValueError("its checksum is not the one in the index")
            self._places += _places(path)
        except (OSError, ValueError, KeyError, tarfile.TarError) as error:
            self.skipped[entry["file"]] = str(error)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> EncodedSample:
        place = self._places[index]
        with place.path.open("rb") as file:
            file.seek(place.offset)
            tensors = {name: x.float() for name, x in load(file.read(place.size)).items()}
        channels = tensors.pop("channels", None)
        return EncodedSample(**tensors, channels=channels, key=place.key)


def _places(path: Path) -> list[_Place]:
    """Where each sample of a tar lies. Tars are read in place, so that any sample can be asked for in any order."""
    found: dict[str, tuple[int, int]] = {}
    keys: dict[str, str] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            stem, _, suffix = member.name.partition(".")
            if suffix == "safetensors":
                found[stem] = (member.offset_data, member.size)
            elif suffix == "json":
                file = tar.extractfile(member)
                keys[stem] = str(json.loads(file.read())["key"]) if file is not None else ""
    return [_Place(path, offset, size, keys[stem]) for stem, (offset, size) in sorted(found.items())]


def fingerprint(module: torch.nn.Module) -> str:
    """Short checksum of a network's weights, so that latents are never mixed with another autoencoder's."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
