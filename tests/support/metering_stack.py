"""Fixtures of the tests of metering: a Stripe, and livejobs set up for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from livejobs.database import Database, get_database
from livejobs.settings import Settings, configure

from .stripe_server import KEY, WEBHOOK_SECRET, StripeServer, stripe_server


@pytest.fixture
def stripe() -> Iterator[StripeServer]:
    """A Stripe."""
    with stripe_server() as server:
        yield server


@pytest.fixture
def metering(
    settings: Settings, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """The database of livejobs, which is set up for that Stripe, also in processes begun later."""
    own = {
        "STRIPE_API_KEY": KEY,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "LIVEJOBS_STRIPE_API_BASE": stripe.url,
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    names = ("database_url", "redis_url", "data_dir", "secrets")
    configure(**{name: getattr(settings, name) for name in names})
    database = get_database()
    yield database
    database.close()
