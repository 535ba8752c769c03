from __future__ import annotations

import pytest

from gafcore.captures.synthetic import SynthConfig, SyntheticCapture, make
from gafcore.rigs import load_rig
from gafcore.rigs.base import Rig


@pytest.fixture(scope="session")
def rig() -> Rig:
    return load_rig("procedural")


@pytest.fixture(scope="session")
def bald(rig) -> SyntheticCapture:
    """A short, small, bald capture that tests share; frames are rendered once."""
    return make(SynthConfig(seed=3, size=96, n_timesteps=10, hair="bald"), rig=rig)
