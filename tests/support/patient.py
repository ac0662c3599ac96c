"""Callers that wait for a job's row as long as it takes.

On a machine that is busy a row may take longer than the second that callers wait for it. They are
told to try again, and tests that are about something else do not.
"""

from __future__ import annotations

from typing import Final

import pytest

from livejobs import awaiting, recording

SECONDS: Final = 30.0


def wait_for_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have callers in this process wait, whichever way they make their jobs."""
    for module in (awaiting, recording):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", SECONDS)
