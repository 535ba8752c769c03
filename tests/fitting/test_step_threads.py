"""What an iteration reports, at several numbers of threads."""

from __future__ import annotations

from dataclasses import replace

import torch

from gafcore.cameras import resize
from gafcore.fitting import FitConfig, fit
from tests.cases.ball import ball_capture


def test_the_history_is_the_same_at_any_number_of_threads():
    """Pictures of 3 x 128 x 128 numbers: torch splits a mean from 32,768 on."""
    capture, n = ball_capture(), torch.get_num_threads()
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(128, 128, 3, generator=g)
    sized = tuple(
        replace(f, camera=resize(f.camera, 128, 128), image=lambda: picture.clone(), mask=lambda: torch.ones(128, 128))
        for f in capture.frames
    )
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            steps = []
            fit(
                replace(capture, frames=sized), FitConfig(iterations=3), progress=False, callback=lambda _, s, to=steps: to.append(s.values)
            )
            results.append(torch.stack(steps))
    finally:
        torch.set_num_threads(n)
    assert torch.equal(*results)
