"""What detection found in a clip, and which of several faces is the one to track."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

N_LANDMARKS = 478

_SAME_FACE = 1.5  # a face further from the last one than this, in face sizes, is another person
_FORGET_S = 0.5  # after this long without the face, any face may take over
_CUT_PICTURE = 0.10  # mean change of the thumbnails (0..1) above which a picture may begin a new shot
_CUT_RATIO = 4.0  # ... if it is also this many times the change around it
_CUT_JUMP = 0.9  # face centre moves by more than this many face sizes, or its size by more than a factor of 1 + this / 2


@dataclass(frozen=True)
class Faces:
    """All faces in one picture."""

    landmarks: np.ndarray  # [K, 478, 2] float32, pixels
    scores: np.ndarray  # [K, 52] float32, in the order of the model's names


@dataclass(frozen=True)
class Detections:
    """The tracked face over T frames. Landmarks are NaN and scores 0 where it was not found."""

    landmarks: Float[Tensor, "T 478 2"]
    scores: Float[Tensor, "T 52"]
    score_names: tuple[str, ...]
    found: Bool[Tensor, "T"]
    n_faces: Int[Tensor, "T"]
    person: UInt8[Tensor, "T h w"]  # probability x 255; the long side is at most 256 px, as the model works
    cuts: tuple[int, ...]  # frames that begin a new shot, or another person's face
    times_s: Float[Tensor, "T"]
    width: int
    height: int
    seconds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.found)


def face_boxes(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, 2] and sizes [K] (geometric mean of width and height), pixels."""
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    return (low + high) / 2, np.sqrt(np.maximum(np.prod(high - low, axis=1), 1e-6))


def shot_starts(thumbnails: np.ndarray) -> list[int]:
    """Frames whose picture differs abruptly from the one before. `thumbnails` [T, h, w, 3] uint8."""
    if len(thumbnails) < 2:
        return []
    change = np.abs(np.diff(thumbnails.astype(np.float32) / 255, axis=0)).mean(axis=(1, 2, 3))
    starts = []
    for i, value in enumerate(change):
        around = np.concatenate([change[max(0, i - 5) : i], change[i + 1 : i + 6]])
        if value > _CUT_PICTURE and value > _CUT_RATIO * (np.median(around) if len(around) else 0.0):
            starts.append(i + 1)
    return starts


def follow(faces: list[Faces], times_s: np.ndarray, starts: list[int]) -> np.ndarray:
    """Which face of each frame to track [T], -1 for none: the largest at first and after a cut, then the nearest to the last."""
    chosen = np.full(len(faces), -1)
    last: tuple[np.ndarray, float, float] | None = None  # centre, size, time
    for t, found in enumerate(faces):
        if t in starts:
            last = None
        if len(found.landmarks) == 0:
            continue
        centres, sizes = face_boxes(found.landmarks)
        pick = int(sizes.argmax())
        if last is not None:
            distance = np.linalg.norm(centres - last[0], axis=1) / last[1]
            nearest = int(distance.argmin())
            if distance[nearest] <= _SAME_FACE:
                pick = nearest
            elif times_s[t] - last[2] < _FORGET_S:
                continue
        chosen[t] = pick
        last = (centres[pick], float(sizes[pick]), float(times_s[t]))
    return chosen


def face_jumps(landmarks: np.ndarray, found: np.ndarray) -> list[int]:
    """Frames at which the tracked face jumps in place or size from the frame before: a cut that the picture hardly shows."""
    centres, sizes = face_boxes(np.where(found[:, None, None], landmarks, 0))
    jumps = []
    for t in range(1, len(found)):
        if found[t] and found[t - 1]:
            moved = np.linalg.norm(centres[t] - centres[t - 1]) / sizes[t - 1]
            grown = max(sizes[t] / sizes[t - 1], sizes[t - 1] / sizes[t])
            if moved > _CUT_JUMP or grown > 1 + _CUT_JUMP / 2:
                jumps.append(t)
    return jumps


def takeovers(landmarks: np.ndarray, found: np.ndarray) -> list[int]:
    """Frames at which, after a gap, the tracked face is not where it was lost: `follow` took up another person, or another shot."""
    seen = np.flatnonzero(found)
    centres, sizes = face_boxes(np.where(found[:, None, None], landmarks, 0))
    return [int(t) for s, t in pairwise(seen) if t > s + 1 and np.linalg.norm(centres[t] - centres[s]) > _SAME_FACE * sizes[s]]


def collect(
    faces: list[Faces], names: tuple[str, ...], person: np.ndarray, thumbnails: np.ndarray, times_s: np.ndarray, size: tuple[int, int]
) -> Detections:
    """Choose the tracked face and put everything into tensors. `size` is (width, height)."""
    starts = shot_starts(thumbnails)
    chosen = follow(faces, times_s, starts)
    found = chosen >= 0
    landmarks = np.full((len(faces), N_LANDMARKS, 2), np.nan, np.float32)
    scores = np.zeros((len(faces), len(names)), np.float32)
    for t in np.flatnonzero(found):
        landmarks[t], scores[t] = faces[t].landmarks[chosen[t]], faces[t].scores[chosen[t]]
    cuts = sorted({*starts, *face_jumps(landmarks, found), *takeovers(landmarks, found)})
    return Detections(
        landmarks=torch.from_numpy(landmarks),
        scores=torch.from_numpy(scores),
        score_names=names,
        found=torch.from_numpy(found),
        n_faces=torch.tensor([len(f.landmarks) for f in faces]),
        person=torch.from_numpy(person),
        cuts=tuple(cuts),
        times_s=torch.from_numpy(times_s),
        width=size[0],
        height=size[1],
    )
