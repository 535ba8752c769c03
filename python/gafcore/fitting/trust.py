"""How far a fit trusts the small prior: as far as the prior reproduces the training pictures that it is shown.

Two measurements of one thing are weighted by their precisions, the inverses of their squared errors. The training pictures are one, the
prior's views the other, and `prior_weight` is right for people whom the prior draws as well as those that it was made for. Of a person
whom it draws worse, its views say less: by the ratio of the squared errors, and by that ratio once more, because what it was shown is what
it draws best. With the ratio alone, the turned frames of a real clip were still worse than without a prior (docs/small_prior.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gafcore.diffusion.small.prior import SmallPrior
from gafcore.diffusion.small.reproduction import reproduction_error
from gafcore.fitting.cut_out import cut_out
from gafcore.tracking.threads import one_thread
from gafcore.types import Capture

REFERENCE_DB = 29.1
"""What the shipped prior's reproduction of the pictures of 64 people comes to who were not in its training (seeds from 2,000,000, tracked
with errors as in training, hair as a fit finds it): PSNR on the head, white and black behind it, their median (docs/small_prior.md)."""
_POWER = 2  # of the ratio of squared errors
_PICTURES = 16


@dataclass(frozen=True)
class Trust:
    """The prior's mean squared error on training pictures; NaN where nothing was measured."""

    error: float = math.nan

    @property
    def psnr(self) -> float:
        """The error in dB."""
        return -10 * math.log10(max(self.error, 1e-12))

    @property
    def share(self) -> float:
        """Of the weight, 0 to 1; all of it where nothing was measured."""
        return 1.0 if math.isnan(self.error) else min(1.0, 10 ** (_POWER * (self.psnr - REFERENCE_DB) / 10))

    def notes(self, weight: float) -> tuple[str, ...]:
        """For a reader of the fit's figures; `weight` is the configured one."""
        if math.isnan(self.error):
            return ()
        return (f"The prior reproduces training pictures at {self.psnr:.1f} dB: its weight is {self.share * weight:.2g} of {weight:g}.",)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint; empty where nothing was measured."""
        return {} if math.isnan(self.error) else {"error": torch.tensor(self.error, dtype=torch.float64)}

    @staticmethod
    def of(state: dict[str, Tensor]) -> Trust:
        """Of a checkpoint's `state`; nothing measured where it is empty."""
        return Trust(float(state["error"])) if "error" in state else Trust()


@torch.no_grad()
def measured(prior: SmallPrior, capture: Capture, numbers: Sequence[int], device: torch.device | str = "cpu") -> Trust:
    """The prior on some of the training frames `numbers`, evenly spread.

    Every other picture is put on black instead of white: what is missing or too much at the outline shows against one of them, whatever
    the colour of the hair.

    Args:
        prior: On `device`.
        capture: With the parameters that the fit starts from, on the CPU.
        numbers: Of its training frames.
        device: Where to compute.

    Raises:
        InputError: One of these frames has no mask.
    """
    errors, rig, params = [], capture.rig.to(device), capture.params.to(device)
    for k, place in enumerate(torch.linspace(0, len(numbers) - 1, min(_PICTURES, len(numbers))).round().int().tolist()):
        frame = capture.frames[numbers[place]]
        vertices = rig.vertices(params[frame.timestep])[0]
        rgba, background = cut_out(frame, capture.background).to(device), torch.full((3,), 1.0 - k % 2)
        with one_thread():  # matrix products have other last bits on more, and every weight of the fit would
            error = reproduction_error(prior, rgba, frame.camera, rig, vertices, background)
        errors += [] if error is None else [error]
    return Trust(math.fsum(errors) / len(errors)) if errors else Trust()
