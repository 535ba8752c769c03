"""How much of its weight the small prior keeps on a capture."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace

import pytest
import torch

from gafcore.captures.synthetic import SynthConfig, make
from gafcore.errors import InputError
from gafcore.fitting import FitConfig, Interrupted, PseudoConfig, PseudoTruths, fit, make_prior
from gafcore.fitting.trust import REFERENCE_DB, Trust, measured
from gafcore.types import Capture
from tests.cases.ball import ball_capture
from tests.cases.small_prior import tiny_prior

QUICK = FitConfig(iterations=8, checkpoint_every=100)
OFTEN = PseudoConfig(refresh_every=3, prior_views=2)
REFERENCE = 10 ** (-REFERENCE_DB / 10)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return ball_capture()


class Recalls:
    """A prior that draws the picture that it was given into all views, with a known squared error."""

    size, n_views, condition = 16, 2, "rig"
    regression = diffusion = tiny_prior().regression

    def __init__(self, error: float) -> None:
        self.off, self.backgrounds = 2 * error**0.5, []

    def to(self, device):
        return self

    def regress(self, image, fill, conditions):
        self.backgrounds.append(float(image[0, 0, 0, 0]))
        return (image[:, None, :3] + self.off).expand_as(fill)


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.25), (10.0, 0.01)])
def test_the_weight_falls_with_the_square_of_inverse_variances(capture, ratio, share):
    prior = Recalls(ratio * REFERENCE)
    trust = measured(prior, capture, capture.splits["train"])
    assert trust.error == pytest.approx(ratio * REFERENCE, rel=1e-4, abs=1e-12)
    assert trust.share == pytest.approx(share, rel=1e-4)
    assert prior.backgrounds == pytest.approx([1, -1, 1, -1])  # white and black in turn, in -1..1


def test_at_most_sixteen_pictures_are_looked_at(capture):
    prior = Recalls(REFERENCE)
    many = replace(capture, frames=capture.frames * 10)
    measured(prior, many, tuple(range(0, 80, 2)))
    assert len(prior.backgrounds) == 16


def test_where_no_head_is_seen_nothing_is_measured(capture):
    empty = replace(capture, frames=tuple(replace(f, mask=lambda: torch.zeros(48, 48)) for f in capture.frames))
    trust = measured(Recalls(1.0), empty, capture.splits["train"])
    assert math.isnan(trust.error) and trust.share == 1 and trust.notes(2.0) == () and trust.state() == {}


def test_a_fit_says_what_it_measured_and_keeps_that_share_of_the_weight(capture):
    truths, losses = PseudoTruths(Recalls(2 * REFERENCE), OFTEN), []
    ask = PseudoTruths.__call__

    class Watched(PseudoTruths):
        def __call__(self, request):
            views = ask(self, request)
            losses.append(None if views is None else views.weight)
            return views

    watched = Watched(truths.prior, OFTEN)
    result = fit(capture, QUICK, prior=watched, progress=False)
    assert losses[:4] == pytest.approx([0.5] * 4, rel=1e-4)
    dB = REFERENCE_DB - 10 * math.log10(2)
    assert f"The prior reproduces training pictures at {dB:.1f} dB: its weight is 0.5 of 2." in result.notes


def test_a_person_whom_the_prior_knows_gets_the_bits_of_full_trust(capture):
    known = fit(capture, QUICK, prior=PseudoTruths(Recalls(0.5 * REFERENCE), OFTEN), progress=False)
    full = PseudoTruths(Recalls(0.5 * REFERENCE), replace(OFTEN, prior_trust="full"))
    assert full.notes() == ()
    assert_same_bits(known, fit(capture, QUICK, prior=full, progress=False))


def test_a_resumed_fit_knows_what_was_measured(capture, tmp_path):
    """It does not measure again: its tuned rig would give another figure."""

    def stop(iteration, _):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(capture, QUICK, prior=PseudoTruths(tiny_prior(), OFTEN), progress=False, out=tmp_path, callback=stop)
    resumed = PseudoTruths(tiny_prior(), OFTEN)
    resumed.measure = None  # would fail if called
    b = fit(capture, QUICK, prior=resumed, progress=False, out=tmp_path, resume=True)
    a = fit(capture, QUICK, prior=PseudoTruths(tiny_prior(), OFTEN), progress=False)
    assert a.notes == b.notes and 0 < Trust.of(resumed.state()).share < 1
    assert_same_bits(a, b)


def assert_same_bits(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a.avatar.parameters().values(), b.avatar.parameters().values(), strict=True))


def test_the_shipped_prior_is_measured_alike_at_any_number_of_threads():
    """Its matrix products are not alike."""
    head, found, n = make(SynthConfig(size=64, n_timesteps=2, eval_timesteps=1, seed=5)).capture, [], torch.get_num_threads()
    prior = make_prior("small").prior
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(measured(prior, head, head.splits["train"]).error)
    finally:
        torch.set_num_threads(n)
    assert found[0] == found[1] > 0


def test_masks_are_needed(capture):
    bare = replace(capture, frames=tuple(replace(f, mask=None) for f in capture.frames))
    with pytest.raises(InputError, match="has no mask, which the prior needs"):
        measured(Recalls(0.0), bare, capture.splits["train"])


def test_settings_are_checked():
    with pytest.raises(InputError, match="prior_trust must be measured or full, got 'half'"):
        PseudoConfig(prior_trust="half")
