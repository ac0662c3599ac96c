"""However Stripe fails and whatever dies: the sum that arrives is the sum that was recorded.

`LIVEJOBS_USAGE_EVENTS` says how many usages each round has, 100,000 in the long form.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from requests import Session
from sqlalchemy import delete
from sqlalchemy.engine.default import DefaultDialect

from livejobs import SyncSession, record_usage
from livejobs.database import Database
from livejobs.usage import batches
from livejobs.usage import usage as usages
from livejobs.usage_batches import LEASE_SECONDS, decide, outlook
from tests.support.chance import how_many, seeds, told
from tests.support.metering import batch_rows, flushed, pass_time, recorded
from tests.support.stripe_server import FAULTS, StripeServer

pytest_plugins = ["tests.support.metering_stack"]

EVENTS: Final = int(os.environ.get("LIVEJOBS_USAGE_EVENTS", "1000"))
USUAL: Final = 3
DAY: Final = 86_400.0
CODES: Final = (None, "resource_already_exists", "duplicate_meter_event")


class Died(BaseException):
    """A flush ended here, as by a kill."""


class Course:
    """What befalls, by chance.

    Attributes:
        expected: What was recorded and committed.
        calm: Nothing goes wrong any more.
    """

    def __init__(self, database: Database, stripe: StripeServer) -> None:
        self.database = database
        self.stripe = stripe
        self.deaths = self.calls = self.arrived = 0
        self._flushing = threading.local()
        stripe.fault = self._fault
        self.begin(random.Random(0))

    def begin(self, chance: random.Random) -> None:
        """Forget what was, and take another course."""
        self.chance = chance
        self.expected: Counter[tuple[str, str]] = Counter()
        self.calm = False
        self._keys: list[dict[str, Any]] = []
        self.stripe.taken.clear()
        self.stripe.keys.clear()
        with self.database.begin() as connection:
            for table in (usages, batches):
                connection.execute(delete(table))

    def _fault(self) -> str | None:
        if self.calm or self.chance.random() > 0.1:
            return None
        return self.chance.choice(FAULTS)

    def surround(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Let flushes die before and after the calls of a function."""
        function: Callable[..., Any] = getattr(owner, name)

        def surrounded(*args: Any, **kwargs: Any) -> Any:
            self._perhaps_die()
            answer = function(*args, **kwargs)
            self._perhaps_die()
            return answer

        monkeypatch.setattr(owner, name, surrounded)

    def _perhaps_die(self) -> None:
        flushing = getattr(self._flushing, "now", False)
        if flushing and not self.calm and self.chance.random() < 0.01:
            self.deaths += 1
            raise Died

    def record(self, number: int) -> None:
        """Record usage in a transaction that may be rolled back; some of it was there before."""
        new: list[dict[str, Any]] = []
        with SyncSession() as session:
            for _ in range(number):
                usage: dict[str, Any] = {
                    "customer": f"cus_{self.chance.randrange(5)}",
                    "meter": self.chance.choice(("tokens", "pages")),
                    "value": self.chance.randint(-10, 1000),
                    "key": f"{self.chance.getrandbits(64):x}",
                    "at": datetime.now(UTC) - timedelta(hours=self.chance.randrange(6)),
                }
                assert record_usage(**usage, session=session)
                new.append(usage)
            for usage in self.chance.sample(self._keys, min(len(self._keys), number // 20)):
                assert not record_usage(**usage, session=session)
            if self.chance.random() < 0.1:
                session.rollback()
                return
            session.commit()
        self._keys = (self._keys + new)[-1000:]
        for usage in new:
            self.expected[usage["customer"], usage["meter"]] += usage["value"]

    def flush(self, at_once: int) -> None:
        """So many flushes at the same time."""
        errors: list[BaseException] = []

        def run() -> None:
            self._flushing.now = True
            try:
                flushed()
            except Died:
                pass
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def person_decides(self) -> None:
        """Somebody looks up at Stripe whether what is held has arrived."""
        arrived = {identifier for identifier, _ in self.stripe.taken}
        for row in batch_rows(self.database):
            assert row.status != "failed", row.error
            if row.status == "held":
                self.database.run(decide(row.id, arrived=row.id in arrived))

    def wait(self) -> None:
        """Let some time pass: minutes, or days."""
        days = self.chance.random() < 0.2
        pass_time(self.database, self.stripe, self.chance.uniform(1, 3) * (DAY if days else 1200))

    def run(self) -> None:
        """All of a round."""
        left, chance = EVENTS, self.chance
        while left > 0:
            number = min(left, chance.randint(1, max(600, EVENTS // 100)))
            self.record(number)
            left -= number
            for _ in range(chance.randint(0, 6)):
                self.stripe.duplicate_code = chance.choice(CODES)
                self.flush(chance.choice((1, 1, 2, 3)))
                self.wait()
                self.person_decides()
        self.calm = True
        for _ in range(3):
            pass_time(self.database, self.stripe, LEASE_SECONDS + 3600)
            self.flush(1)
            self.person_decides()
        self.flush(1)

    def check(self) -> None:
        """What was recorded has arrived, once."""
        assert self.database.run(outlook())[:4] == (0, 0, 0, 0)
        assert recorded(self.database) == self.expected
        assert self.stripe.sums() == self.expected
        identifiers = [identifier for identifier, _ in self.stripe.taken]
        assert len(set(identifiers)) == len(identifiers)
        self.calls += len(self.stripe.keys)
        self.arrived += len(identifiers)


@pytest.mark.timeout(120 + how_many(USUAL) * (10 + EVENTS // 50))
def test_sum_that_arrives_is_the_sum_that_was_recorded(
    metering: Database, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = Course(metering, stripe)
    course.surround(monkeypatch, Session, "send")
    course.surround(monkeypatch, DefaultDialect, "do_commit")
    for seed in seeds(USUAL):
        with told(seed) as chance:
            course.begin(chance)
            course.run()
            course.check()
    assert course.calls > course.arrived or how_many(USUAL) == 1, "something went wrong"
