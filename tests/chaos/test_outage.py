"""Redis is killed under viewers of running jobs: the short form of `make chaos-outage`."""

from __future__ import annotations

import pytest

from .outage import outage

VIEWERS = 20
JOBS = 5
SECONDS = 10.0


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_redis_away_costs_no_job_and_viewers_go_on_seeing_updates() -> None:
    found, _ = await outage(VIEWERS, JOBS, SECONDS)
    assert found.wrong(in_time=False) == []
    assert (found.attempts, found.lost) == (1, 0), found.text()
    assert found.during < SECONDS, found.text()  # it was not all of the outage
