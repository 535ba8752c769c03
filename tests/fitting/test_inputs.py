from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.errors import InputError
from gafcore.fitting.inputs import Pictures, make_inputs
from tests.cases.ball import ball_capture

CPU, WHITE, RED = torch.device("cpu"), (1.0, 1.0, 1.0), torch.tensor([1.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


def eight_bits(frame):
    image, mask = ((x() * 255).round() / 255 for x in (frame.image, frame.mask))
    return replace(frame, image=lambda: image, mask=lambda: mask)


@pytest.mark.parametrize("background", [torch.ones(3), RED], ids=["as captured", "another"])
@pytest.mark.parametrize("change", [lambda f: f, eight_bits], ids=["floats", "8 bits"])
def test_a_target_is_the_picture_over_the_background_wherever_it_is_kept(capture, background, change):
    frame = change(capture.frames[2])
    want = frame.image() + (1 - frame.mask())[..., None] * (background - 1)
    plain = make_inputs(2, frame, WHITE, background)
    kept = make_inputs(2, frame, WHITE, background, Pictures(CPU, 10**6))
    assert torch.equal(plain.target(), want) and torch.equal(kept.target(), want)
    assert kept.image.dtype == (torch.uint8 if change is eight_bits else torch.float32)


@pytest.mark.parametrize("change", [lambda f: f, eight_bits], ids=["floats", "8 bits"])
def test_a_frame_is_the_same_where_its_pictures_are_kept(capture, change):
    frame, pictures = change(capture.frames[2]), Pictures(CPU, 10**6)
    kept = pictures.on_device(2, frame)
    assert torch.equal(kept.image(), frame.image()) and torch.equal(kept.mask(), frame.mask())
    assert kept.camera is frame.camera and kept.timestep == frame.timestep and pictures.bytes_used > 0
    bare = pictures.on_device(4, replace(frame, mask=None))
    assert bare.mask is None and torch.equal(bare.image(), frame.image())


def test_numbers_are_what_the_frame_says(capture):
    frame = replace(capture.frames[6], timestep=70_001)
    inputs = make_inputs(6, frame, WHITE, RED)
    assert torch.equal(inputs.camera.viewmat, frame.camera.viewmat) and torch.equal(inputs.camera.K, frame.camera.K)
    assert (inputs.camera.width, inputs.camera.height) == (48, 48)
    assert inputs.row.tolist() == [70_001] and inputs.row.dtype == torch.int64
    assert torch.equal(inputs.background, RED)


def test_inputs_of_one_kind_are_copied_into_each_other(capture):
    pictures = Pictures(CPU, 10**6)
    one, two = (make_inputs(i, capture.frames[i], WHITE, RED * i, pictures) for i in (0, 2))
    own = one.clone()
    assert one.kind == two.kind
    own.copy_(two)
    assert torch.equal(own.target(), two.target()) and torch.equal(own.numbers, two.numbers)
    assert not torch.equal(one.target(), two.target())
    rounded = make_inputs(4, eight_bits(capture.frames[4]), WHITE, RED, pictures)
    assert rounded.kind != one.kind


def test_pictures_are_decoded_once_within_the_limit(capture):
    decoded = []

    def counted(i):
        frame = eight_bits(capture.frames[i])
        return replace(frame, image=lambda: (decoded.append(i), frame.image())[1])

    size = 48 * 48 * 4  # three channels and the mask, 8 bits each
    pictures = Pictures(CPU, 2 * size + 1)
    for i in (0, 2, 0, 4, 0, 2):  # 4 drives out 2, not 0, which was used later
        pictures.get(i, counted(i))
        assert pictures.bytes_used <= 2 * size
    assert decoded == [0, 2, 4, 2]
    nothing = Pictures(CPU, 0)
    assert nothing.get(0, counted(0))[0].shape == (48, 48, 3) and nothing.bytes_used == 0


def test_a_frame_without_a_mask(capture):
    bare = replace(capture.frames[0], mask=None)
    for pictures in (None, Pictures(CPU, 10**6)):
        assert torch.equal(make_inputs(0, bare, WHITE, torch.ones(3), pictures).target(), bare.image())
        with pytest.raises(InputError, match="has no mask, so its background"):
            make_inputs(0, bare, WHITE, RED, pictures)


def test_not_a_number_is_kept_to_be_found_later(capture):
    spoiled = torch.full((48, 48, 3), float("nan"))
    image, _ = Pictures(CPU, 10**6).get(0, replace(capture.frames[0], image=lambda: spoiled))
    assert image.dtype == torch.float32 and bool(image.isnan().all())
