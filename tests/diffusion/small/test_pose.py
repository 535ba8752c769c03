"""Networks that see neither normals nor warp."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gafcore.diffusion.small.conditions import prepare
from gafcore.diffusion.small.pose import mirrored, placement_of
from gafcore.diffusion.small.resident import ResidentPeople, draw_batches
from gafcore.diffusion.small.store import GrowingPeople, join, make_set, mirror
from gafcore.diffusion.small.views import head_pose, view_camera
from gafcore.rigs import Rig, load_rig


@pytest.fixture(scope="module")
def rig() -> Rig:
    return load_rig("procedural")


@pytest.mark.parametrize(
    ("azimuth", "elevation", "distance", "roll", "expected"),
    [
        (0, 0, 1.1, 0, (0, 0, 1, 0)),
        (90, 0, 1.1, 0, (1, 0, 0, 0)),
        (-90, 0, 1.32, 0, (-1.2, 0, 0, 0)),
        (0, 30, 1.1, 0, (0, 0.5, 0.75**0.5, 0)),
        (0, 0, 0.99, 0.05, (0, 0, 0.9, 0.5)),
    ],
)
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.3, -0.5, 0.2)], ids=["upright", "turned"])
def test_a_placement_says_direction_distance_and_roll(rig, turn, azimuth, elevation, distance, roll, expected):
    """Whichever way the head is turned in the world."""
    params = replace(rig.neutral(1), rotation=torch.tensor([turn]), translation=torch.tensor([[0.1, 0.2, -0.3]]))
    pose = head_pose(rig, rig.vertices(params)[0])
    camera = view_camera(pose, math.radians(azimuth), math.radians(elevation), distance, 16, roll)
    torch.testing.assert_close(placement_of(camera, pose), torch.tensor(expected), rtol=0, atol=1e-4, check_dtype=False)


def test_a_mirror_image_is_seen_from_the_mirrored_place(rig):
    pose = head_pose(rig, rig.vertices(rig.neutral(1))[0])
    pose = replace(pose, axes=torch.eye(3), center=torch.tensor([0.0, 0.1, 0.0]))  # symmetric about x = 0, as the mirror image then is
    here, there = (view_camera(pose, side * 0.7, 0.2, 1.2, 16, side * 0.04) for side in (1, -1))
    torch.testing.assert_close(mirrored(placement_of(here, pose)), placement_of(there, pose), rtol=0, atol=1e-5)
    assert abs(float(placement_of(here, pose)[3])) > 0.2


def test_nothing_of_the_rigs_shape_is_left(people_folder):
    people, background = GrowingPeople(people_folder, 4).including(3), torch.tensor([0.5, 0.25, 1.0])
    bare, full = make_set(people, 1, [5, 2], background, "pose"), make_set(people, 1, [5, 2], background)
    assert torch.equal(bare.image[:, :3], full.image[:, :3]) and not bare.image[:, 3:].any()
    assert torch.equal(bare.targets, full.targets)
    assert bare.fill[0, 1, :, 3, 4].tolist() == [0, -0.5, 1]
    want = torch.from_numpy(people["placements"][1, [5, 2]])
    for y, x in ((7, 2), (0, 0)):
        assert torch.equal(bare.conditions[0, :, 1:, y, x], want[:, :3]) and torch.equal(bare.conditions[0, :, 0, y, x], want[:, 3])


def test_batches_on_a_device_are_the_same(people_folder):
    people = ResidentPeople(people_folder, 4, torch.device("cpu"))
    people.refresh()
    draw = draw_batches(torch.Generator().manual_seed(0), 4, 1, 3, 2)
    draw.gain.fill_(1), draw.contrast.fill_(1)
    draw.mirrored[0] = torch.tensor([True, False, True])
    one = type(draw)(*draw.at(0))
    arrays, sets = GrowingPeople(people_folder, 4).including(3), []
    for k in range(3):
        made = make_set(arrays, int(one.people[k]), one.views[k].tolist(), one.background[k], "pose")
        sets.append(mirror(made, "pose") if one.mirrored[k] else made)
    batch, want = people.batch(one, "pose"), join(sets)
    for name in ("image", "fill", "conditions", "targets", "background"):
        expected = getattr(want, name) if name == "conditions" else getattr(want, name).clamp(-1, 1)
        torch.testing.assert_close(getattr(batch, name), expected, rtol=0, atol=2e-6, msg=name)


def test_a_fits_conditions(rig):
    vertices = rig.vertices(rig.neutral(1))[0]
    pose = head_pose(rig, vertices)
    camera, view = (view_camera(pose, azimuth, 0.0, 1.1, 16) for azimuth in (0.0, 0.5))
    picture = torch.rand(16, 16, 4, generator=torch.Generator().manual_seed(0))
    given = [picture, camera, rig, vertices, [view], torch.tensor([1.0, 0.0, 0.5])]
    bare, full = prepare(*given, condition="pose"), prepare(*given)
    assert torch.equal(bare.image[:, :3], full.image[:, :3]) and not bare.image[:, 3:].any()
    assert bare.fill[0, 0, :, 8, 8].tolist() == [1, -1, 0]
    want = torch.tensor([0.0, math.sin(0.5), 0.0, math.cos(0.5)])
    torch.testing.assert_close(bare.conditions[0, 0, :, 3, 3], want, rtol=0, atol=1e-5)
