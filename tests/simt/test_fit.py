"""A fit over the emulated kernels of csrc/cuda: the CPU's within rounding, the same bits when iterations are repeated as by a graph."""

from __future__ import annotations

import pytest
import torch

from gafcore.avatars.density import DensityConfig
from gafcore.fitting import FitConfig, fit, loop, optim
from gafcore.ops import pair_room
from tests.cases.ball import ball_capture
from tests.fitting.test_graphs import Recorder, assert_same_bits
from tests.simt.emulator import KIND, emulated
from tests.simt.test_adam import adam_in_the_emulator

pytestmark = pytest.mark.skipif(KIND != "plain", reason="kernels and Adam have smaller scenes of their own under the sanitizers")


def test_a_fit_is_the_cpus_within_rounding(monkeypatch):
    """A density round after iteration 5 included."""
    capture, config = ball_capture(), FitConfig(iterations=10, density=DensityConfig(start=5, every=5, grad_threshold=1e-4))
    cpu = fit(capture, config, progress=False)
    monkeypatch.setattr(optim, "adam_cuda", adam_in_the_emulator)
    emulations = []
    for recorder in (None, Recorder()):
        monkeypatch.setattr(loop, "graphs_on", lambda _, recorder=recorder: recorder)
        pair_room.forget()
        with emulated("random"):
            emulations.append(fit(capture, config, progress=False))
    pair_room.forget()
    assert recorder is not None and recorder.replays == 10 - 2 * 2
    assert_same_bits(*emulations)
    assert len(cpu.avatar) > 128
    assert torch.equal(emulations[0].avatar.binding, cpu.avatar.binding)
    assert emulations[0].history["loss"] == pytest.approx(cpu.history["loss"], rel=1e-4)
    for name, x in cpu.avatar.parameters().items():
        torch.testing.assert_close(emulations[0].avatar.parameters()[name], x, rtol=1e-3, atol=1e-4)
