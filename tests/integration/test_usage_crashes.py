"""Usage is recorded and sent by processes that die between any two of their steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from livejobs import record_usage
from livejobs.database import Database
from livejobs.settings import get_settings
from livejobs.usage_batches import LEASE_SECONDS
from tests.support.crashing import Crasher, by_turns
from tests.support.metering import batch_rows, flushed, pass_time, recorded, used
from tests.support.stripe_server import StripeServer

pytest_plugins = ["tests.support.metering_stack"]

APP = "livejobs_worker.usage"


@pytest.fixture
def crasher(metering: Database, tmp_path: Path) -> Iterator[Crasher]:
    """Runs parts that die."""
    with Crasher(get_settings(), tmp_path, APP) as crasher:
        yield crasher


def flush(crasher: Crasher, **points: str) -> str:
    return crasher.end(crasher.start("flush", {}, **points))


def check_all_arrived(database: Database, stripe: StripeServer, what: str) -> None:
    """Once the lease has run out, the next flush brings what the dead one had, nothing twice."""
    pass_time(database, stripe, LEASE_SECONDS + 1)
    result = flushed()
    assert (result["pending"], result["held"], result["failed"]) == (0, 0, 0), what
    assert stripe.sums() == recorded(database), what
    identifiers = [identifier for identifier, _ in stripe.taken]
    assert len(set(identifiers)) == len(identifiers), what


@pytest.mark.timeout(400)
def test_flush_that_dies_at_any_step_sends_each_usage_once(
    crasher: Crasher, metering: Database, stripe: StripeServer
) -> None:
    def work() -> None:
        # Two batches, so that each step is there with something before and behind it.
        used("cus_1", 3)
        used("cus_2", 5)

    work()
    assert flush(crasher) == "done"
    points = crasher.reached()
    wanted = {"INSERT livejobs_usage_batches 2", "HTTP 2", "after HTTP 2", "after COMMIT 4"}
    assert wanted <= set(points)
    check_all_arrived(metering, stripe, "nothing")
    for point in by_turns(points, metering.settings.database_url):
        work()
        assert flush(crasher, stop=point) == "killed", point
        check_all_arrived(metering, stripe, point)


@pytest.mark.timeout(400)
def test_flush_that_dies_as_it_repeats_a_batch_sends_it_once(
    crasher: Crasher, metering: Database, stripe: StripeServer
) -> None:
    def work() -> None:
        used("cus_1", 3)
        stripe.fail("cut after")
        flushed()
        pass_time(metering, stripe, 3600)

    work()
    assert flush(crasher) == "done"
    points = crasher.reached()
    assert "after HTTP 1" in points
    for point in by_turns(points, metering.settings.database_url, "HTTP 1", "after HTTP 1"):
        work()
        assert flush(crasher, stop=point) == "killed", point
        check_all_arrived(metering, stripe, point)
    assert {row.status for row in batch_rows(metering)} == {"sent"}


@pytest.mark.timeout(400)
def test_flush_whose_commit_is_not_answered_sends_each_usage_once(
    crasher: Crasher, metering: Database, stripe: StripeServer
) -> None:
    used("cus_1", 3)
    assert flush(crasher) == "done"
    commits = [point for point in crasher.reached() if point.startswith("COMMIT")]
    assert len(commits) >= 3
    for point in commits:
        used("cus_1", 3)
        assert flush(crasher, lose=point) == "exit code 1", point
        check_all_arrived(metering, stripe, point)


def test_usage_recorded_again_after_a_crash_counts_once(
    crasher: Crasher, metering: Database
) -> None:
    def record(**points: str) -> dict[str, object]:
        usage = {"customer": "cus_1", "meter": "tokens", "value": 3, "key": uuid4().hex}
        end = crasher.end(crasher.start("record", usage, **points))
        assert end == ("killed" if "stop" in points else "done" if not points else "exit code 1")
        return usage

    record()
    points = crasher.reached()
    assert points == ["INSERT livejobs_usage 1", "COMMIT 1", "after COMMIT 1"]
    expected = 3
    for what in [{"stop": point} for point in points] + [{"lose": "COMMIT 1"}]:
        usage = record(**what)
        committed = what.get("stop") == "after COMMIT 1" or "lose" in what
        assert record_usage(**usage) is not committed  # type: ignore[arg-type]
        expected += 3
        assert recorded(metering) == {("cus_1", "tokens"): expected}
