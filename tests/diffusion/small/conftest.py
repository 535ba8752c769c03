"""People that nobody drew."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from gafcore.diffusion.small.people import N_VIEWS
from gafcore.diffusion.small.store import FORMAT, TRAIN_SEED


@pytest.fixture
def people_folder(tmp_path):
    """Four people of 16 x 16 random pixels, in one file as `write_people` makes it."""
    rng = np.random.default_rng(0)
    n, s = 4, 16
    arrays = {
        "image": rng.integers(0, 255, (n, s, s, 4), dtype=np.uint8),
        "image_normals": rng.integers(-127, 127, (n, s, s, 3), dtype=np.int8),
        "targets": rng.integers(0, 255, (n, N_VIEWS, s, s, 4), dtype=np.uint8),
        "fill": rng.integers(0, 255, (n, N_VIEWS, s, s, 3), dtype=np.uint8),
        "visibility": 255 * rng.integers(0, 2, (n, N_VIEWS, s, s), dtype=np.uint8),
        "normals": rng.integers(-127, 127, (n, N_VIEWS, s, s, 3), dtype=np.int8),
        "angles": rng.normal(size=(n, N_VIEWS, 2)).astype(np.float32),
        "placements": rng.normal(size=(n, N_VIEWS, 4)).astype(np.float32),
        "cameras": rng.normal(size=(n, N_VIEWS + 1, 25)).astype(np.float32),
    }
    save_file(arrays, tmp_path / f"people_{TRAIN_SEED}.safetensors", {"format": FORMAT})
    return tmp_path
