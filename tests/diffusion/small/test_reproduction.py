"""The prior's error at the input's own camera."""

from __future__ import annotations

import pytest
import torch

from gafcore.cameras import from_angles
from gafcore.diffusion.small.conditions import input_camera, prepare
from gafcore.diffusion.small.people import INPUT_SIZE, make_input, make_person, tracked_vertices
from gafcore.diffusion.small.reproduction import reproduction_error
from gafcore.rigs import load_rig
from tests.cases.ball import ball_rig
from tests.cases.small_prior import tiny_prior

RIG = ball_rig()
CAMERA = from_angles(0.2, 0.1, 1.0, focal_px=200.0, width=96, height=80)
WHITE, GREY = torch.ones(3), torch.full((3,), 0.5)


class Recalls:
    """Draws the picture that it was given, `off` too bright, in the first view, and nothing in the others."""

    size, n_views, condition = 16, 3, "rig"

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def regress(self, image, fill, conditions):
        assert fill.shape == (1, 3, 3, 16, 16) and conditions.shape == (1, 3, 4, 16, 16)
        return torch.cat([image[:, None, :3] + 2 * self.off, torch.zeros_like(fill[:, 1:])], 1)


def disc(covered: float = 1.0) -> torch.Tensor:
    """A grey picture, of which this share of each pixel is the head's."""
    return torch.cat([torch.full((80, 96, 3), 0.3 * covered), torch.full((80, 96, 1), covered)], -1)


def error(prior, rgba, background=WHITE):
    return reproduction_error(prior, rgba, CAMERA, RIG, RIG.template, background)


def test_it_is_the_mean_squared_error_of_colours_from_0_to_1():
    assert error(Recalls(), disc()) == 0
    assert error(Recalls(0.1), disc()) == pytest.approx(0.01, rel=1e-5)
    assert error(tiny_prior(), disc()) == error(tiny_prior(), disc()) > 0


def test_only_the_head_counts():
    """The left half of the picture is not the head's: a prior that draws the head's colour there too is not wrong about it."""
    half = disc()
    half[:, :48] = 0

    class Grey(Recalls):
        def regress(self, image, fill, conditions):
            return torch.full_like(fill, 2 * 0.3 - 1)

    assert error(Grey(), half) < 0.01
    assert error(Grey(), disc()) == pytest.approx(0, abs=1e-10)
    assert error(Recalls(), torch.zeros(80, 96, 4)) is None


def test_without_other_views():
    class Alone(Recalls):
        n_views = 1

        def regress(self, image, fill, conditions):
            assert fill.shape[1] == 1
            return image[:, None, :3]

    assert error(Alone(), disc(), GREY) == 0


def test_the_view_at_the_inputs_camera_shows_the_input():
    """Colours that are carried to it through the rig stay where they were."""
    size, ramp = 32, torch.linspace(0, 1, 96)[None, :, None].expand(80, 96, 3)
    rgba = torch.cat([ramp, torch.ones(80, 96, 1)], -1)
    view = input_camera(CAMERA, RIG, RIG.template, size)
    given = prepare(rgba, CAMERA, RIG, RIG.template, [view], GREY)
    seen = given.conditions[0, 0, 0] > 0
    assert seen.float().mean() > 0.1 and given.coverage.shape == (size, size)
    torch.testing.assert_close(given.fill[0, 0, :, seen], given.image[0, :3, seen], atol=0.03, rtol=0)


def test_the_input_of_a_person_alone_is_that_of_the_whole_person():
    rig = load_rig("procedural")
    person, (picture, camera, tracked) = make_person(rig, 77), make_input(rig, 77)
    assert picture.shape == (INPUT_SIZE, INPUT_SIZE, 4) and (camera.width, camera.height) == (INPUT_SIZE, INPUT_SIZE)
    pooled = picture.unflatten(0, (64, 2)).unflatten(2, (64, 2)).mean((1, 3))
    assert (pooled * 255 - torch.from_numpy(person.image).float()).abs().max() <= 0.51
    assert torch.equal(tracked, tracked_vertices(rig, 77))
    assert torch.equal(camera.viewmat.flatten(), torch.from_numpy(person.cameras[0, :16]))
