"""`pytest -m gpu` runs these suites on a GPU's kernels, unchanged; GAFCORE_KERNELS=simt runs them in the emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import chosen


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr != "gpu":
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _kernels(request):
    with chosen(request):
        yield
