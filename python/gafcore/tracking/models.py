"""Where MediaPipe and its two model files come from. Nothing is downloaded: the user fetches the files once from their official page."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gafcore.errors import MissingError

FACE_MODEL = "face_landmarker.task"
PERSON_MODEL = "selfie_segmentation.tflite"
PERSON_MODEL_ALIAS = "selfie_segmenter.tflite"  # the name under which the download page serves it today
MODELS_PAGES = (
    "https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
    "https://ai.google.dev/edge/mediapipe/solutions/vision/image_segmenter",
)
MODELS_VARIABLE = "GAFCORE_MODELS"


@dataclass(frozen=True)
class ModelFiles:
    """The two files that detection opens."""

    face: Path
    person: Path


def cache_dir() -> Path:
    """This user's cache for gafcore, by the platform's convention."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "gafcore" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gafcore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gafcore"


def find_models(folder: str | Path | None = None) -> ModelFiles:
    """The model files in `folder`, else in $GAFCORE_MODELS, else in the user's cache; the first of these that is set decides.

    Raises:
        MissingError: A file is absent; the message names both, the folder that was searched and the download page.
    """
    folder = Path(folder or os.environ.get(MODELS_VARIABLE) or cache_dir() / "models").expanduser()
    alias = folder / PERSON_MODEL_ALIAS
    files = ModelFiles(folder / FACE_MODEL, alias if alias.is_file() else folder / PERSON_MODEL)
    absent = [p.name for p in (files.face, files.person) if not p.is_file()]
    if absent:
        raise MissingError(
            f"{folder}: {' and '.join(absent)} not found. Tracking needs {FACE_MODEL} ({MODELS_PAGES[0]}) and {PERSON_MODEL} "
            f"or {PERSON_MODEL_ALIAS} ({MODELS_PAGES[1]}); download both and name their folder with --models or ${MODELS_VARIABLE}"
        )
    return files


def import_mediapipe() -> ModuleType:
    """The mediapipe package.

    Raises:
        MissingError: It is not installed, or cannot be imported here.
    """
    # TensorFlow Lite's start-up notes would tear the progress bar.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import mediapipe
        import mediapipe.tasks.python.vision
    except ImportError as error:
        raise MissingError(f'tracking needs mediapipe ({error}); install it with: pip install "gafcore[track]"') from None
    return mediapipe


def import_opencv() -> ModuleType:
    """The cv2 package, which mediapipe brings with it.

    Raises:
        MissingError: It is not installed, or cannot be imported here.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingError(f'tracking needs OpenCV ({error}); install it with: pip install "gafcore[track]"') from None
    return cv2
