"""Fixtures for the tests of apps that use livejobs; pytest finds them by itself.

It is loaded in every run of pytest where livejobs is installed: it imports nothing but pytest
before one of its fixtures is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # importing them is what has to wait
    from .testing import Enqueued, Recorder, Run


@pytest.fixture
def livejobs_app() -> Any:
    """The Celery app of `livejobs_eager`, None: all that there are. Define your own to choose."""
    return None


@pytest.fixture
def livejobs_eager(livejobs_app: Any) -> Iterator[Recorder]:
    """Tasks run inline in this test; the recorder knows what viewers would be told."""
    from .testing import eager

    with eager(livejobs_app) as recorder:
        yield recorder


@pytest.fixture
def livejobs_enqueued() -> Iterator[Enqueued]:
    """What this test enqueues is kept, and not sent."""
    from .testing import enqueued

    with enqueued() as jobs:
        yield jobs


@pytest.fixture
def livejobs_run() -> Callable[..., Run]:
    """`livejobs.testing.run`: runs one task as a job."""
    from .testing import run

    return run
