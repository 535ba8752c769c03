"""After the emulator's whole suite: a kernel that no test has run is a failure, and so is an instance of a template, except in the race
detector's build, which has small scenes only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simt import kernels
from tests.simt.emulator import KIND, module_path


def is_asked(session: pytest.Session) -> bool:
    """Not after a selection by -k, by name or by file, nor on one of several workers, which has seen a part only."""
    option = session.config.option
    selected = option.keyword or option.collectonly or any("::" in a for a in session.config.args) or hasattr(session.config, "workerinput")
    return module_path() is not None and not selected and kernels.is_whole({Path(item.path) for item in session.items})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus != pytest.ExitCode.OK or not is_asked(session):
        return
    if idle := kernels.never_run(instances=KIND != "tsan"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[IDLE] = idle


IDLE = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if idle := config.stash.get(IDLE, []):
        terminalreporter.section("kernels that no test runs", red=True)
        terminalreporter.line(f"{KIND}: {', '.join(idle)}")
