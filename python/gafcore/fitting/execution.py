"""Where and how a fit computes: nothing here is part of what the fit is, so a checkpoint written on one device goes on on another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gafcore.devices import DeviceName
from gafcore.errors import InputError


@dataclass(frozen=True)
class Execution:
    """What may differ between a fit and its continuation."""

    device: DeviceName = "auto"
    """Where to compute: cpu, cuda, or auto: the GPU where there is one and gafcore was compiled with CUDA."""
    picture_mb: int = 4000
    """Memory for decoded training pictures on the GPU, MB; the least recently used ones leave."""
    graph: bool = True
    """On a GPU, replay iterations as CUDA graphs instead of launching their kernels one by one."""

    def __post_init__(self) -> None:
        if self.picture_mb < 0:
            raise InputError(f"picture_mb must be at least 0, got {self.picture_mb}")


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, everything inside goes to a stream of its own, after what was asked before; on leaving, all of it is done.

    Graphs cannot be captured on the default stream, and gradients of a leaf are added on the stream where it was first used:
    so captured and other iterations share one.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        outside, inside = torch.cuda.current_stream(), torch.cuda.Stream()
        inside.wait_stream(outside)
        try:
            with torch.cuda.stream(inside):
                yield
        finally:
            inside.synchronize()  # what the host gives back now (pinned memory above all) must not be in use
