"""The synthetic people that the prior learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gafcore.diffusion.small.people import SIZE, Person, make_person
from gafcore.diffusion.small.store import read_people, write_people
from gafcore.mesh import rasterize
from gafcore.rigs import load_rig
from gafcore.types import Camera


@pytest.fixture(scope="module")
def person() -> Person:
    return make_person(load_rig("procedural"), 77)


def test_a_seed_is_a_person(person):
    again, other = make_person(load_rig("procedural"), 77), make_person(load_rig("procedural"), 78)
    assert all(np.array_equal(getattr(person, name), getattr(again, name)) for name in Person.names())
    assert np.abs(person.targets.astype(int) - other.targets).max() > 50


def test_views_reach_around_the_head(person):
    azimuth, elevation = person.angles.T
    assert np.array_equal((azimuth + 90) // 22.5, np.arange(8)) and np.abs(elevation).max() <= 30
    side, front = person.normals[0], person.normals[4]  # the subject's right, and nearly the front
    assert side.shape == (SIZE, SIZE, 3)
    share = lambda n: (n[..., 2] < -90).sum() / (n != 0).any(-1).sum()  # noqa: E731  (looking at the camera)
    assert 0.1 < share(side) < 0.9 and 0.1 < share(front) < 0.9


def test_the_rig_covers_most_of_the_head_and_carries_what_the_input_saw(person):
    alpha, on_rig = person.targets[..., 3] > 127, (person.normals != 0).any(-1)
    assert ((alpha & on_rig).sum() / alpha.sum()) > 0.6
    seen = person.visibility > 0
    assert not (seen & ~on_rig).any()
    shares = seen.sum((1, 2)) / on_rig.sum((1, 2))
    assert shares[3:5].min() > shares[[0, 7]].max()  # a frontal picture shows more of the front than of the sides
    truth = person.targets[..., :3][seen].astype(float)
    assert np.abs(truth - person.fill[seen]).mean() < 25  # of 255: the same skin, a little off, for the rig is only tracked


def test_the_stored_cameras_are_those_of_the_views(person):
    """The tracked rig is not stored, but any head about the origin covers about the same pixels."""
    rig = load_rig("procedural")
    row = torch.from_numpy(person.cameras[4])
    camera = Camera(row[:16].view(4, 4), row[16:].view(3, 3), SIZE, SIZE)
    covered = rasterize(rig.template, rig.faces, camera).triangle_ids[0].numpy() >= 0
    stored = (person.normals[3] != 0).any(-1)
    assert (covered & stored).sum() / (covered | stored).sum() > 0.6


def test_people_in_a_folder_are_made_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("gafcore.diffusion.small.store.CHUNK", 1)
    rig = load_rig("procedural")
    write_people(rig, tmp_path, 500, 2, made.append, part=1, parts=2)
    assert made == ["people 2 of 2"]
    write_people(rig, tmp_path, 500, 2, made.append)
    assert made == ["people 2 of 2", "people 1 of 2"]
    people = read_people(tmp_path, 500, 2)
    assert np.array_equal(people["image"][1], make_person(rig, 501).image)
