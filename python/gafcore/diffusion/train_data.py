"""What a training reads: folders of captures, synthetic people, or shards."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, overload

from gafcore.captures import synthetic, vhap
from gafcore.captures.synthetic import SynthConfig
from gafcore.diffusion.capture_samples import CaptureSamples
from gafcore.diffusion.encoded import EncodedSet, Encoder, collate_encoded
from gafcore.diffusion.sample import SampleSet, collate
from gafcore.diffusion.shards import INDEX, ShardSet, fingerprint
from gafcore.diffusion.train_config import TrainConfig
from gafcore.diffusion.train_parts import Parts
from gafcore.errors import InputError, MissingError
from gafcore.rigs import load_rig
from gafcore.types import Capture

_SYNTHETIC = re.compile(r"^synthetic:(\d+)(?:-(\d+))?$")
_KEPT = 4  # captures open at once: their caches of decoded pictures are what takes memory


@dataclass
class LazyCaptures(Sequence[Capture]):
    """Captures opened when asked for; the last few stay open."""

    openers: Sequence[Callable[[], Capture]]
    _open: OrderedDict[int, Capture] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.openers)

    @overload
    def __getitem__(self, index: int) -> Capture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Capture]: ...
    def __getitem__(self, index: int | slice) -> Capture | Sequence[Capture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._open:
            self._open[index] = self.openers[index]()
            while len(self._open) > _KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(index)
        return self._open[index]


def captures_of(names: Sequence[str], picture_size: int) -> LazyCaptures:
    """Captures by name: a folder in VHAP's layout, a folder of such folders, or "synthetic:SEEDS" ("synthetic:7", "synthetic:0-99").

    Raises:
        MissingError: There is none at a path.
    """
    openers: list[Callable[[], Capture]] = []
    for name in names:
        openers += _synthetic(name, picture_size) if name.startswith("synthetic:") else _folders(Path(name))
    return LazyCaptures(openers)


def _synthetic(name: str, picture_size: int) -> Iterator[Callable[[], Capture]]:
    found = _SYNTHETIC.match(name)
    if found is None:
        raise InputError(f"{name!r}: synthetic people are named by seeds, as in synthetic:7 or synthetic:0-99")
    first = int(found[1])
    for seed in range(first, int(found[2] or first) + 1):
        yield partial(_all_views, SynthConfig(seed=seed, size=2 * picture_size, n_timesteps=12, samples=2))


def _all_views(config: SynthConfig) -> Capture:
    """Every camera at every timestep: the capture's own splits leave most of them out."""
    made = synthetic.make(config)
    frames = tuple(frame for timestep in made.views for frame in timestep)
    return Capture(frames, made.capture.rig, made.capture.params, {"train": tuple(range(len(frames)))}, made.capture.background)


def _folders(path: Path) -> list[Callable[[], Capture]]:
    def has(folder: Path) -> bool:
        return any((folder / name).is_file() for name in ("transforms.json", "transforms_train.json"))

    folders = [path] if has(path) else sorted(p for p in path.glob("*") if p.is_dir() and has(p))
    if not folders:
        raise MissingError(f"{path}: no capture here or one folder below; a capture has transforms.json (docs/captures.md)")
    return [partial(vhap.read, folder) for folder in folders]


@dataclass(frozen=True)
class TrainData:
    """Attributes:
    training: Samples to learn from, of the objective's kind.
    validation: Samples held out.
    collate: Samples to a batch.
    notes: What was skipped.
    """

    training: Any
    validation: Any
    collate: Callable[[Sequence[Any]], Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """Some places of a data set."""

    whole: Any
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.whole[self.first + index]


def encoder_of(config: TrainConfig, parts: Parts) -> Encoder:
    """The frozen networks as the model wants their output."""
    condition = config.condition if config.model == "multiview" else "none"
    tokens = config.model == "multiview" and config.image_embedding == "resampler"
    return Encoder(parts.vae, parts.image_encoder, condition, tokens, low=config.model == "upsampler")


def about(config: TrainConfig, parts: Parts) -> dict[str, Any]:
    """What shards for this training say about themselves; shards that say otherwise are refused."""
    encoder = encoder_of(config, parts)
    made = {"condition": encoder.condition, "tokens": encoder.tokens, "low": encoder.low, "picture_size": config.picture_size}
    networks: dict[str, Any] = {"vae": parts.vae, "clip": parts.image_encoder}
    return made | {"n_views": config.n_views} | {name: fingerprint(network) for name, network in networks.items()}


def pictures_of(names: Sequence[str], config: TrainConfig) -> SampleSet:
    """Samples with pictures, from captures."""
    if len(names) == 1 and names[0].startswith("people:"):
        return _people(names[0], config)
    captures, carry = captures_of(names, config.picture_size), None
    if config.model == "multiview" and config.condition == "warp":
        if config.picture_size & (config.picture_size - 1):
            raise InputError(f"carrying a picture to other views needs a picture_size that is a power of two, got {config.picture_size}")
        carry = import_module("gafcore.diffusion.small.warp").carry
    return CaptureSamples(captures, config.picture_size, config.n_views, config.per_capture, config.seed, carry=carry)


def _people(name: str, config: TrainConfig) -> SampleSet:
    """The small prior's own data: "people:1000", made when asked for, with warped pictures, at the one size they have."""
    if not name.removeprefix("people:").isdecimal():
        raise InputError(f"{name!r}: these are named by how many, as in people:1000")
    samples = import_module("gafcore.diffusion.small.samples").SyntheticPeople(load_rig("procedural"), int(name.removeprefix("people:")))
    n_views, size = samples[0].targets.shape[:2]
    if (n_views, size) != (config.n_views, config.picture_size):
        raise InputError(f"{name}: has {n_views} views of {size} pixels; set n_views and picture_size to these")
    return samples


def open_data(names: Sequence[str], config: TrainConfig, parts: Parts) -> TrainData:
    """The data of a training; the last samples are held out for validation.

    Raises:
        MissingError: There are no data at a path.
        InputError: Shards were made for something else, or there are too few samples.
    """
    shards = [name for name in names if (Path(name) / INDEX).is_file()]
    if shards and len(names) > 1:
        raise InputError(f"shards are trained on alone, got {', '.join(names)}; write one folder of shards from all captures")
    notes: tuple[str, ...] = ()
    samples: Any
    if shards:
        if config.model == "autoencoder":
            raise InputError(f"{names[0]}: holds latents, an autoencoder trains on pictures; name captures")
        samples = ShardSet(Path(shards[0]))
        want = about(config, parts)
        differs = [f"{k} {samples.about.get(k)!r}, needed {v!r}" for k, v in want.items() if samples.about.get(k) != v]
        if differs:
            raise InputError(f"{shards[0]}: was written for another training ({'; '.join(differs)})")
        notes = tuple(f"skipped {name}: {why}" for name, why in samples.skipped.items())
    elif config.model == "autoencoder":
        samples = pictures_of(names, config)
    elif config.workers:
        raise InputError("workers load shards and pictures; captures are encoded by the training process: write shards, or set workers 0")
    else:
        samples = EncodedSet(pictures_of(names, config), encoder_of(config, parts))
    held = config.n_validation if config.validate_every else 0
    if len(samples) <= held:
        raise InputError(f"{', '.join(names)}: {len(samples)} samples, of which {held} are held out; none is left to learn from")
    n = len(samples) - held
    return TrainData(_Part(samples, 0, n), _Part(samples, n, held), collate if config.model == "autoencoder" else collate_encoded, notes)
