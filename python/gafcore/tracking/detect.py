"""Landmarks, expression scores and person masks by MediaPipe, one picture at a time.

Image mode, not video mode: video mode filters the landmarks and lags 0.3 frames behind; the solver smooths instead, with all frames known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import numpy as np

from gafcore.captures.video import Clip
from gafcore.errors import InputError
from gafcore.progress import track as progress
from gafcore.tracking.detections import N_LANDMARKS, Detections, Faces, collect
from gafcore.tracking.models import ModelFiles, import_mediapipe
from gafcore.tracking.resize import resized
from gafcore.tracking.threads import as_they_come

_MASK_PX = 256  # long side at which person masks are kept: the resolution at which the model works
_THUMB_PX = 32
_MAX_FACES = 4
_MAX_DETECTORS = 4  # each holds 60 MB


class Detector:
    """The two MediaPipe tasks, opened once. Use as a context manager: the tasks hold threads and must be closed."""

    def __init__(self, models: ModelFiles, min_confidence: float = 0.5) -> None:
        self._mp = import_mediapipe()
        vision, base = self._mp.tasks.vision, self._mp.tasks.BaseOptions
        with ExitStack() as stack, _named(models.face):
            self._face = stack.enter_context(
                vision.FaceLandmarker.create_from_options(
                    vision.FaceLandmarkerOptions(
                        base_options=base(model_asset_path=str(models.face)),
                        output_face_blendshapes=True,
                        num_faces=_MAX_FACES,
                        min_face_detection_confidence=min_confidence,
                        min_face_presence_confidence=min_confidence,
                    )
                )
            )
            with _named(models.person):
                self._person = stack.enter_context(
                    vision.ImageSegmenter.create_from_options(
                        vision.ImageSegmenterOptions(base_options=base(model_asset_path=str(models.person)), output_confidence_masks=True)
                    )
                )
            self._stack = stack.pop_all()
        self.names: tuple[str, ...] = ()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def faces(self, image: np.ndarray) -> Faces:
        """All faces in `image` [H, W, 3] uint8."""
        found = self._face.detect(_mp_image(self._mp, image))
        if not found.face_landmarks:
            return Faces(np.zeros((0, N_LANDMARKS, 2), np.float32), np.zeros((0, 0), np.float32))
        scale = np.array([image.shape[1], image.shape[0]], np.float32)
        points = np.array([[(p.x, p.y) for p in face] for face in found.face_landmarks], np.float32) * scale
        scores = np.array([[c.score for c in face] for face in found.face_blendshapes], np.float32)
        if not self.names:
            self.names = tuple(c.category_name for c in found.face_blendshapes[0])
        return Faces(points, scores)

    def person(self, image: np.ndarray) -> np.ndarray:
        """The probability that a pixel shows a person, x 255, uint8, at most 256 px on the long side."""
        shrink = min(1.0, _MASK_PX / max(image.shape[:2]))
        if shrink < 1.0:  # the model works at that size: on more pixels it only takes longer
            image = resized(image, (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))))
        mask = self._person.segment(_mp_image(self._mp, image)).confidence_masks[0].numpy_view()
        mask = mask.reshape(image.shape[:2]) * np.float32(255)
        mask += 0.5
        np.fmax(mask, 0, out=mask)  # also where it is NaN
        return np.fmin(mask, 255, out=mask).astype(np.uint8)


@contextmanager
def _named(model: Path) -> Iterator[None]:
    """What MediaPipe says about a damaged model does not tell which file it is."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{model}: MediaPipe cannot open this model ({error}); download it again") from None


def _mp_image(mp: ModuleType, image: np.ndarray) -> Any:
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    rows = np.linspace(0, image.shape[0] - 1, min(_THUMB_PX * 4, image.shape[0])).astype(int)
    columns = np.linspace(0, image.shape[1] - 1, min(_THUMB_PX * 4, image.shape[1])).astype(int)
    return resized(image[rows][:, columns], (_THUMB_PX, _THUMB_PX))


def detect(clip: Clip, models: ModelFiles, *, max_frames: int | None = None, min_confidence: float = 0.5) -> Detections:
    """Find the face and the person in every frame. Frames run side by side, each on one thread with a detector of its own.

    Raises:
        MissingError: MediaPipe is not installed.
        InputError: No frame shows a face.
    """
    n = len(clip) if max_frames is None else min(len(clip), max_frames)
    if n == 0:
        raise InputError(f"{clip.name}: the clip has no frames")
    times = np.array([float(clip.times_s[i]) for i in range(n)], np.float32)
    import_mediapipe()  # takes a second, once a process: not counted
    clock = {"decode": 0.0, "landmarks": 0.0, "mask": 0.0}
    begin = time.perf_counter()
    with ExitStack() as stack:
        detectors = [stack.enter_context(Detector(models, min_confidence)) for _ in range(min(n, os.cpu_count() or 1, _MAX_DETECTORS))]
        images = progress(_images(clip, n, clock), f"{clip.name}: faces and masks", total=n)
        seen = list(_look(detectors, images))
        names = next((detector.names for detector in detectors if detector.names), ())
    faces = [look.faces for look in seen]
    if not any(len(f.landmarks) for f in faces):
        raise InputError(
            f"{clip.name}: no face found in any of {n} frames of {clip.width}x{clip.height}. "
            "The face must look towards the camera, be upright, and be about a fifth of the picture's height or more"
        )
    clock["landmarks"], clock["mask"] = (sum(seconds) for seconds in zip(*(look.seconds for look in seen), strict=True))
    clock["detect"] = time.perf_counter() - begin
    masks, thumbnails = np.stack([look.person for look in seen]), np.stack([look.thumbnail for look in seen])
    return replace(collect(faces, names, masks, thumbnails, times, (clip.width, clip.height)), seconds=clock)


@dataclass(frozen=True)
class _Look:
    """What one frame showed, and the seconds that landmarks and mask took."""

    faces: Faces
    person: np.ndarray
    thumbnail: np.ndarray
    seconds: tuple[float, float]


def _look(detectors: list[Detector], images: Iterable[np.ndarray]) -> Iterator[_Look]:
    """Every picture by whichever detector is idle, in order."""
    idle: SimpleQueue[Detector] = SimpleQueue()
    for detector in detectors:
        idle.put(detector)

    def look(image: np.ndarray) -> _Look:
        detector = idle.get()
        try:
            clock = [time.perf_counter()]
            faces = detector.faces(image)
            clock.append(time.perf_counter())
            person = detector.person(image)
            clock.append(time.perf_counter())
            return _Look(faces, person, _thumbnail(image), (clock[1] - clock[0], clock[2] - clock[1]))
        finally:
            idle.put(detector)

    with ThreadPoolExecutor(len(detectors)) as pool:
        yield from as_they_come(pool, look, images)


def _images(clip: Clip, n: int, clock: dict[str, float]) -> Iterator[np.ndarray]:
    for i in range(n):
        start = time.perf_counter()
        image = clip.image(i)
        clock["decode"] += time.perf_counter() - start
        yield image
