from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gafcore.diffusion.small.resident import ResidentPeople
from gafcore.diffusion.small.store import (
    TRAIN_SEED,
    GrowingPeople,
    join,
    make_set,
    mirror,
    read_people,
    recolor,
    training_batch,
    write_people,
)
from gafcore.errors import InputError, MissingError


def test_a_set_is_composited_on_its_background(people_folder):
    people = GrowingPeople(people_folder, 4).including(3)
    background = torch.tensor([0.2, 0.4, 0.6])
    made = make_set(people, 1, [5, 2], background)
    rgba = people["targets"][1, 2].astype(np.float64) / 255
    want = 2 * (rgba[..., :3] + (1 - rgba[..., 3:]) * background.numpy()) - 1
    np.testing.assert_allclose(made.targets[0, 1].permute(1, 2, 0).numpy(), want, atol=1e-6)
    np.testing.assert_allclose(made.masks[0, 1, 0].numpy(), rgba[..., 3], atol=1e-6)
    assert made.image.shape == (1, 6, 16, 16) and made.fill.shape == (1, 2, 3, 16, 16) and made.conditions.shape == (1, 2, 4, 16, 16)


def test_two_mirrors_cancel_and_one_turns_the_normals(people_folder):
    made = make_set(GrowingPeople(people_folder, 4).including(3), 0, [0, 1], torch.ones(3))
    once = mirror(made)
    assert torch.equal(once.conditions[0, 0, 1], -made.conditions[0, 0, 1].flip(-1))
    assert torch.equal(once.conditions[0, 0, 2], made.conditions[0, 0, 2].flip(-1))
    twice = mirror(once)
    assert all(torch.equal(getattr(twice, name), getattr(made, name)) for name in ("image", "fill", "conditions", "targets", "masks"))


def test_recolouring_changes_picture_and_views_alike(people_folder):
    """Where the picture and a target have the same colour, they still have afterwards; so does the background."""
    made = make_set(GrowingPeople(people_folder, 4).including(3), 0, [0, 1], torch.tensor([0.5, 0.4, 0.3]))
    made.image[0, :3, 0, 0] = made.targets[0, 0, :, 3, 3]
    made.fill[0, 1, :, 2, 2] = 2 * made.background[0] - 1
    changed = recolor(made, torch.Generator().manual_seed(3))
    torch.testing.assert_close(changed.image[0, :3, 0, 0], changed.targets[0, 0, :, 3, 3])
    torch.testing.assert_close(changed.fill[0, 1, :, 2, 2], 2 * changed.background[0] - 1)
    assert float((changed.targets - made.targets).abs().max()) > 0.01
    assert torch.equal(changed.conditions, made.conditions) and torch.equal(changed.image[:, 3:], made.image[:, 3:])


def test_a_batch_is_a_function_of_seed_and_step(people_folder):
    a, b = (training_batch(GrowingPeople(people_folder, 4), 3, 2, 7, 5) for _ in range(2))
    assert torch.equal(a.targets, b.targets) and torch.equal(a.fill, b.fill)
    others = [training_batch(GrowingPeople(people_folder, 4), 3, 2, *key).targets for key in ((7, 6), (8, 5))]
    assert not any(torch.equal(a.targets, other) for other in others)
    assert a.targets.shape == (3, 2, 3, 16, 16)


def test_everyone_comes_once_an_epoch_and_later_people_later(people_folder):
    people = GrowingPeople(people_folder, 4, first_epoch=2, patience=2)
    drawn = [people.draw(0, n) for n in range(12)]
    assert sorted(drawn[:2]) == sorted(drawn[2:4]) == [0, 1]
    assert sorted(drawn[4:8]) == sorted(drawn[8:12]) == [0, 1, 2, 3]


def test_joined_sets_keep_their_order(people_folder):
    people = GrowingPeople(people_folder, 4).including(3)
    sets = [make_set(people, k, [0, 1], torch.ones(3)) for k in range(2)]
    assert torch.equal(join(sets).image[1], sets[1].image[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingError, match="people_5.safetensors: no such file; make it with scripts/train_small_prior.py people"):
        read_people(tmp_path, 5, 3)


@pytest.mark.parametrize(("metadata", "found"), [(None, "none"), ({"format": "gafcore people 0"}, "gafcore people 0")])
def test_people_of_another_version_are_refused_by_every_reader(people_folder, metadata, found):
    """Also where they would be kept beside new ones."""
    (path,) = people_folder.iterdir()
    save_file(load_file(path), path, metadata)
    message = re.escape(f"{path}: has format {found!r}, expected 'gafcore people 1': ") + ".*render the people again in an empty folder"
    for use in (
        lambda: read_people(people_folder, TRAIN_SEED, 4),
        lambda: ResidentPeople(people_folder, 4, torch.device("cpu")).refresh(),
        lambda: write_people(None, people_folder, TRAIN_SEED, 4),
    ):
        with pytest.raises(InputError, match=message):
            use()
