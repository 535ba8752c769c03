from __future__ import annotations

import math

import pytest
import torch

from gafcore.fitting import DivergedError, readings
from gafcore.fitting.readings import Readings, StepResult, psnr_of


class Mail:
    """Copies that arrive only when told to, or when waited for."""

    def __init__(self) -> None:
        self.here: list[bool] = []

    def __call__(self, values):
        number = len(self.here)
        self.here.append(False)

        def wait() -> None:
            self.here[number] = True

        return values.clone(), lambda: self.here[number], wait


def step(loss: float, error: float = 0.01) -> StepResult:
    return StepResult(torch.tensor([loss, error]))


def test_on_the_cpu_they_arrive_at_once():
    mail = Readings(together=1)
    mail.add(1, "frame", 5, step(0.5))
    (got,) = mail.arrived()
    assert (got.iteration, got.frame, got.n_gaussians, got.loss) == (1, "frame", 5, 0.5)
    assert got.psnr == pytest.approx(20.0, abs=1e-5)
    assert mail.arrived() == mail.arrived(all_of_them=True) == []


def test_they_are_sent_together_and_come_in_order(monkeypatch):
    post = Mail()
    monkeypatch.setattr(readings, "send", post)
    mail = Readings(together=3)
    for i in range(1, 8):
        mail.add(i, "frame", i, step(i))
        assert mail.arrived() == []
    assert len(post.here) == 2
    post.here[0] = True
    assert [r.iteration for r in mail.arrived()] == [1, 2, 3]
    assert [r.loss for r in mail.arrived(all_of_them=True)] == [4.0, 5.0, 6.0, 7.0]
    assert post.here == [True] * 3


def test_the_host_is_never_far_ahead(monkeypatch):
    post = Mail()
    monkeypatch.setattr(readings, "send", post)
    mail = Readings(together=1)
    got = []
    for i in range(1, 11):
        mail.add(i, "frame", 1, step(i))
        got += mail.arrived()
    assert [r.iteration for r in got] == list(range(1, 11 - readings._ON_THE_WAY))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_with_its_iteration(loss):
    mail = Readings(together=4)
    for i in range(1, 4):
        mail.add(i, f"frame {i}", 1, step(loss if i == 2 else 0.1))
        assert mail.arrived() == []
    with pytest.raises(DivergedError, match=f"iteration 2: the loss is {loss} on the frame 2; try smaller learning rates"):
        mail.arrived(all_of_them=True)


def test_a_result_is_read_when_it_is_looked_at():
    values = torch.tensor([0.25, 0.001])
    result = StepResult(values)
    assert result.loss == 0.25 and result.psnr == pytest.approx(30, abs=1e-4)
    values.zero_()
    assert result.loss == 0.25


def test_equal_pictures_count_as_120_db():
    assert psnr_of(0.0) == 120 and math.isnan(psnr_of(math.nan))
