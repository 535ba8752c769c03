"""The built-in rigs, loaded once."""

from __future__ import annotations

import pytest

from gafcore.rigs import Rig, load_rig


@pytest.fixture(scope="session")
def procedural() -> Rig:
    return load_rig("procedural")


@pytest.fixture(scope="session")
def ict_path(test_data) -> str:
    return str(test_data("rig/ict/ict_facekit_light_f16.npz"))


@pytest.fixture(scope="session")
def ict(ict_path) -> Rig:
    return load_rig(f"ict:{ict_path}")
