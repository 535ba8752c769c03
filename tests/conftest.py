"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections import defaultdict
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
            pytest.skip(f"test data not found: {name} in {root} (GAFCORE_TEST_DATA names the folder)")
        return path

    return find


@pytest.fixture
def threads():
    """Sets the number of threads and restores it afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A pass that left something out says so: one line a reason, with the tests that did not run."""
    left_out: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        left_out[reason.removeprefix("Skipped: ")][report.nodeid.split("::")[0]] += 1
    if left_out:
        terminalreporter.section("NOT TESTED", yellow=True)
    for reason, files in sorted(left_out.items()):
        where = ", ".join(f"{file} ({count})" for file, count in sorted(files.items()))
        terminalreporter.line(f"NOT TESTED: {reason}: {where}", yellow=True)
