"""Networks that do not see the rig."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore.diffusion.small.conditions import prepare
from gafcore.diffusion.small.pose import direction_of, directions_at
from gafcore.diffusion.small.resident import ResidentPeople, draw_batches
from gafcore.diffusion.small.store import GrowingPeople, join, make_set, mirror
from gafcore.diffusion.small.views import head_pose, view_camera
from gafcore.rigs import Rig, load_rig


@pytest.fixture(scope="module")
def rig() -> Rig:
    return load_rig("procedural")


def test_directions_are_those_of_the_cameras(rig):
    params = rig.neutral(1)
    pose = head_pose(rig, rig.vertices(params)[0])
    angles = torch.tensor([[0.0, 0.0], [90.0, 0.0], [-30.0, 20.0]])
    expected = directions_at(angles)
    torch.testing.assert_close(expected[:2], torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), rtol=0, atol=1e-6)
    for (azimuth, elevation), direction in zip(angles.tolist(), expected, strict=True):
        camera = view_camera(pose, math.radians(azimuth), math.radians(elevation), 1.1, 16)
        torch.testing.assert_close(direction_of(camera, pose), direction, rtol=0, atol=1e-5)


def test_nothing_of_the_rig_is_left(people_folder):
    people, background = GrowingPeople(people_folder, 4).including(3), torch.tensor([0.5, 0.25, 1.0])
    bare, full = make_set(people, 1, [5, 2], background, "pose"), make_set(people, 1, [5, 2], background)
    assert torch.equal(bare.image[:, :3], full.image[:, :3]) and not bare.image[:, 3:].any()
    assert torch.equal(bare.targets, full.targets)
    assert bare.fill[0, 1, :, 3, 4].tolist() == [0, -0.5, 1]
    assert not bare.conditions[:, :, 0].any()
    want = directions_at(torch.from_numpy(people["angles"][1, [5, 2]]))
    assert torch.equal(bare.conditions[0, :, 1:, 7, 2], want) and torch.equal(bare.conditions[0, :, 1:, 0, 0], want)


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
        sets.append(mirror(made) if one.mirrored[k] else made)
    batch, want = people.batch(one, "pose"), join(sets)
    for name in ("image", "fill", "conditions", "targets", "background"):
        torch.testing.assert_close(getattr(batch, name), getattr(want, name).clamp(-1, 1), rtol=0, atol=2e-6, msg=name)


def test_a_fits_conditions(rig):
    vertices = rig.vertices(rig.neutral(1))[0]
    pose = head_pose(rig, vertices)
    camera, view = (view_camera(pose, azimuth, 0.0, 1.1, 16) for azimuth in (0.0, 0.5))
    picture = torch.rand(16, 16, 4, generator=torch.Generator().manual_seed(0))
    given = [picture, camera, rig, vertices, [view], torch.tensor([1.0, 0.0, 0.5])]
    bare, full = prepare(*given, condition="pose"), prepare(*given)
    assert torch.equal(bare.image[:, :3], full.image[:, :3]) and not bare.image[:, 3:].any()
    assert bare.fill[0, 0, :, 8, 8].tolist() == [1, -1, 0] and not bare.conditions[:, :, 0].any()
    want = torch.tensor([math.sin(0.5), 0.0, math.cos(0.5)])
    torch.testing.assert_close(bare.conditions[0, 0, 1:, 3, 3], want, rtol=0, atol=1e-5)
