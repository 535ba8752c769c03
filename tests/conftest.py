"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Before anything imports Triton, which decides at import: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def test_data() -> Callable[[str], Path]:
    """`test_data("clips/expressive.mp4")`: a file of the test data, or a skip that says where it was looked for."""
    root = Path(os.environ.get("GAFCORE_TEST_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"test data not found: {path} (set GAFCORE_TEST_DATA)")
        return path

    return find


@pytest.fixture
def threads():
    """Sets the number of threads and restores it afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
