"""Which frames train and which are held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gafcore.errors import InputError
from gafcore.types import Frame

TRAIN = "train"


def gaf_split(
    frames: Sequence[Frame],
    n_timesteps: int,
    *,
    train_camera: int = 8,
    train_fraction: float = 0.8,
    expression_cameras: Iterable[int] = (6, 7, 8, 9, 10),
) -> dict[str, tuple[int, ...]]:
    """GAF's monocular protocol: train on one camera over the first timesteps; "novel_view" is the other cameras over the same timesteps,
    "novel_expression" the cameras near the front over the remaining ones. Frames of other cameras and later timesteps are in no split.

    Raises:
        ValueError: `train_fraction` is not in (0, 1].
    """
    if not 0 < train_fraction <= 1:
        raise ValueError(f"train_fraction must be in (0, 1], got {train_fraction}")
    n_train, near_front = max(1, int(n_timesteps * train_fraction)), set(expression_cameras)
    early = [i for i, f in enumerate(frames) if f.timestep < n_train]
    late = [i for i, f in enumerate(frames) if f.timestep >= n_train]
    return {
        TRAIN: tuple(i for i in early if frames[i].camera_index == train_camera),
        "novel_view": tuple(i for i in early if frames[i].camera_index != train_camera),
        "novel_expression": tuple(i for i in late if frames[i].camera_index in near_front),
    }


def thin(splits: Mapping[str, tuple[int, ...]], frames: Sequence[Frame], timesteps: Iterable[int]) -> dict[str, tuple[int, ...]]:
    """Held-out splits reduced to the given timesteps; "train" stays whole."""
    kept = set(timesteps)
    return {name: ids if name == TRAIN else tuple(i for i in ids if frames[i].timestep in kept) for name, ids in splits.items()}


def keyframes(n_frames: int, n: int) -> list[int]:
    """Places of `n` frames at uniform intervals, as GAF's figure 7 takes them: floor(i n_frames / n), the last one being the last frame.

    Of 56 frames, 8 are 0, 7, 14, 21, 28, 35, 42, 55, and one alone is number 28, the middle (section 5.3).

    Raises:
        ValueError: `n` is not in 1..n_frames.
    """
    if not 1 <= n <= n_frames:
        raise ValueError(f"n must be in 1..{n_frames}, got {n}")
    return [n_frames // 2] if n == 1 else [*(i * n_frames // n for i in range(n - 1)), n_frames - 1]


def check_splits(where: str, splits: Mapping[str, Sequence[int]], frames: Sequence[Frame]) -> None:
    """Refuse splits that would let a method see what it is judged on. Held-out splits may overlap one another.

    Raises:
        InputError: A frame number does not exist or is repeated, or a view of "train" (same timestep and camera) is in another split.
    """
    for name, ids in splits.items():
        outside = next((i for i in ids if not 0 <= i < len(frames)), None)
        if outside is not None:
            raise InputError(f"{where}: split {name!r} names frame {outside}, but there are {len(frames)} frames")
        if len(set(ids)) != len(ids):
            raise InputError(f"{where}: split {name!r} names a frame twice")
    trained = {(frames[i].timestep, frames[i].camera_index): i for i in splits.get(TRAIN, ())}
    for name, ids in splits.items():
        shared = next((i for i in ids if name != TRAIN and (frames[i].timestep, frames[i].camera_index) in trained), None)
        if shared is not None:
            view = f"timestep {frames[shared].timestep}, camera {frames[shared].camera_index}"
            raise InputError(f"{where}: frame {shared} ({view}) is in split {name!r} and in 'train'; held-out views must not train")
