"""Fixtures of the tests of webhooks: a receiver, and livejobs set up to send to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from livejobs.database import Database, get_database
from livejobs.settings import Settings, configure

from .webhook_receiver import SECRET, Receiver, webhook_receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Takes webhooks."""
    with webhook_receiver() as server:
        yield server


@pytest.fixture
def hooked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of livejobs, which sends webhooks to loopback, also in processes begun later."""
    monkeypatch.setenv("LIVEJOBS_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("LIVEJOBS_WEBHOOK_NETWORKS", "127.0.0.0/8")
    names = ("database_url", "redis_url", "data_dir", "secrets")
    configure(**{name: getattr(settings, name) for name in names})
    database = get_database()
    yield database
    database.close()
