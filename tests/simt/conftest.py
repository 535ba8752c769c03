"""After the emulator's whole suite: a kernel that no test has run is a failure, and so is an instance of a template, except in the race
detector's build, which has small scenes only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.simt import kernels
from tests.simt.emulator import KIND, module_path

FOLDER = Path(__file__).parent
LEFT_OUT, IDLE = pytest.StashKey[bool](), pytest.StashKey[list[str]]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """By -k, --last-failed and the like."""
    for item in items:
        if item.path.parent == FOLDER:
            item.config.stash[LEFT_OUT] = True


def is_whole(session: pytest.Session) -> bool:
    """Whether this process ran all tests of this folder: not one of several workers, nor after a choice by file or name."""
    config = session.config
    if (
        config.option.collectonly
        or hasattr(config, "workerinput")
        or config.stash.get(LEFT_OUT, False)
        or any("::" in a for a in config.args)
    ):
        return False
    return {item.path for item in session.items} >= set(FOLDER.glob("test_*.py"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus != pytest.ExitCode.OK or module_path() is None or not is_whole(session):
        return
    if idle := kernels.never_run(instances=KIND != "tsan"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[IDLE] = idle


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if idle := config.stash.get(IDLE, []):
        terminalreporter.section("kernels that no test runs", red=True)
        terminalreporter.line(f"{KIND}: {', '.join(idle)}")
