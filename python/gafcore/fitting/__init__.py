"""Fitting avatars to captures."""

from gafcore.fitting.checkpoint import CheckpointError
from gafcore.fitting.config import FitConfig, LearningRates, LossWeights
from gafcore.fitting.execution import Execution
from gafcore.fitting.interrupts import Interrupted
from gafcore.fitting.loop import FitResult, fit
from gafcore.fitting.lpips import Lpips, load_lpips
from gafcore.fitting.prior import Prior, PriorRequest, PriorViews
from gafcore.fitting.pseudo import PseudoConfig, PseudoTruths, make_prior
from gafcore.fitting.readings import DivergedError

__all__ = [
    "CheckpointError",
    "DivergedError",
    "Execution",
    "FitConfig",
    "FitResult",
    "Interrupted",
    "LearningRates",
    "LossWeights",
    "Lpips",
    "Prior",
    "PriorRequest",
    "PriorViews",
    "PseudoConfig",
    "PseudoTruths",
    "fit",
    "load_lpips",
    "make_prior",
]
