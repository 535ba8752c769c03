from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from gafcore.pictures import save_image, sheet


def load_image(path):
    return torch.from_numpy(np.array(Image.open(path))).float() / 255


def test_image_round_trip_is_exact_in_8_bits(tmp_path):
    image = torch.randint(0, 256, (5, 7, 3)).float() / 255
    save_image(tmp_path / "x.png", image)
    assert torch.equal(load_image(tmp_path / "x.png"), image)


def test_values_outside_the_range_are_clipped(tmp_path):
    save_image(tmp_path / "x.png", torch.tensor([[[-1.0, 0.5, 2.0]]]))
    assert torch.equal(load_image(tmp_path / "x.png") * 255, torch.tensor([[[0.0, 128.0, 255.0]]]))


def test_sheet_places_images_row_by_row():
    red, blue = torch.tensor([1.0, 0, 0]).expand(4, 6, 3), torch.tensor([0, 0, 1.0]).expand(4, 6, 3)
    image = sheet([[red, blue], [blue]])
    assert image.shape == (8, 12, 3)
    assert torch.equal(image[:4, :6], red) and torch.equal(image[:4, 6:], blue) and torch.equal(image[4:, :6], blue)
    assert torch.equal(image[4:, 6:], torch.ones(4, 6, 3))


def test_sheet_labels_and_scales():
    image = sheet([[torch.zeros(4, 6, 3)]], row_labels=["row"], column_labels=["column"], cell_px=40)
    assert image.shape[0] == 40 + 18 and image.shape[1] > 60
    assert image[:18].min() < 0.5  # the label was drawn
