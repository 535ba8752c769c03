from __future__ import annotations

import pytest
import torch

from gafcore.diffusion.sample import collate
from gafcore.diffusion.small.people import make_person
from gafcore.diffusion.small.samples import SyntheticPeople
from gafcore.diffusion.small.store import make_set
from gafcore.rigs import load_rig


@pytest.fixture(scope="module")
def samples():
    return SyntheticPeople(load_rig("procedural"), 3, first_seed=90)


def test_a_sample_is_what_the_small_prior_trains_on(samples):
    """The same person through `make_set`: another path to the same pictures."""
    sample, person = samples[3], make_person(samples.rig, 91)
    background = sample.targets[0, 0, 0]  # the corner shows what is behind the head
    made = make_set({k: getattr(person, k)[None] for k in person.names()}, 0, [1, 3, 5, 7], background)
    torch.testing.assert_close((made.image[0, :3] + 1) / 2, sample.image.permute(2, 0, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close((made.targets[0] + 1) / 2, sample.targets.permute(0, 3, 1, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close((made.fill[0] + 1) / 2, sample.warp.permute(0, 3, 1, 2), atol=1e-6, rtol=0)
    assert torch.equal(made.conditions[0, :, 0], sample.visibility)
    assert sample.key == "91/0/1" and len(samples) == 6


def test_samples_fit_in_a_batch_and_end(samples):
    batch = collate([samples[0], samples[1]])
    assert batch.targets.shape == (2, 4, 64, 64, 3) and batch.viewmats.shape == (2, 4, 4, 4)
    with pytest.raises(IndexError, match="sample must be 0 to 5, got 6"):
        samples[6]
