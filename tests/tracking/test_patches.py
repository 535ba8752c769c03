"""Small grey pictures of the face: where their pixels are in the frame, what the band keeps, and slopes that end at the border."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gafcore.tracking.patches import cut_patch, together

# A face of 300 px, so that patches have half the frame's resolution.
LANDMARKS = np.array([[200.0, 150.0], [500.0, 450.0]], np.float32)


def picture_of(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def dot(x: float, y: float) -> np.ndarray:
    """A soft dot of 4 px, pixel centres at +0.5."""
    v, u = np.mgrid[:600, :700] + 0.5
    return picture_of(200 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 4.0**2)))


def test_a_patch_samples_what_the_frame_shows():
    patches = together([cut_patch(dot(300.0, 250.0), LANDMARKS)])
    line = torch.stack([torch.arange(280.0, 321.0), torch.full((41,), 250.0)], -1)[None]
    value, slope_x, slope_y = patches.sample(line)[0]
    assert int(value.argmax()) == 20
    assert float(value.max()) == pytest.approx(200 / 255 * 0.8, rel=0.1)  # 2 px wide there, so the band keeps four fifths
    assert float(slope_x[20].abs()) < 0.01
    assert float(slope_x[15]) > 0.05
    assert float(slope_x[25]) == pytest.approx(-float(slope_x[15]), rel=0.05)
    assert float(slope_y.abs().max()) < 0.01


def test_light_that_changes_slowly_over_the_face_goes():
    v, u = np.mgrid[:600, :700]
    image = cut_patch(picture_of(40 + 0.15 * u + 0.1 * v), LANDMARKS).image
    assert float(image[15:-15, 15:-15].abs().max()) < 1.5 / 255  # roundings of both pictures


def test_a_small_face_is_not_enlarged():
    patch = cut_patch(dot(300.0, 250.0), LANDMARKS / 5)
    assert patch.scale == 1.0
    assert patch.image.shape == (78, 78)


def test_padding_has_no_slopes_and_pulls_nowhere():
    high, wide = cut_patch(dot(250.0, 250.0), LANDMARKS * (0.5, 1.0)), cut_patch(dot(250.0, 250.0), LANDMARKS * (1.0, 0.5))
    patches = together([high, wide])
    h, w = high.image.shape
    assert patches.stack.shape == (2, 3, max(h, len(wide.image)), max(w, wide.image.shape[1]))
    assert float(patches.stack[0, 1, :, w - 1 :].abs().max()) == 0
    torch.testing.assert_close(patches.stack[0, 0, :h, :w], high.image)
    torch.testing.assert_close(patches.stack[0, 1, 5, 5], (high.image[5, 6] - high.image[5, 4]) / 2)
    far = torch.full((2, 1, 2), -500.0)
    assert float(patches.sample(far).abs().max()) == 0
