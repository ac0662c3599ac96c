"""What child processes wrote while a test failed, shown in its report."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

MOST_CHARACTERS: Final = 6000
"""Of the end of each log; a failure must stay readable."""

_written: dict[Path, None] = {}


def note_log(path: Path) -> None:
    """A child process writes there."""
    _written[path] = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[Any],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs to which something was written meanwhile."""
    report = yield
    if report.failed:
        for path in _written:
            if path.exists() and path.stat().st_mtime >= call.start:
                end = path.read_text(errors="replace")[-MOST_CHARACTERS:]
                report.sections.append((f"end of {path.parent.name}/{path.name}", end))
    return report
