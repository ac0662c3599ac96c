"""What the endpoints work with, made once for each running app."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery
from starlette.requests import HTTPConnection

from livejobs.database import AsyncDatabase
from livejobs.live import AsyncLive
from livejobs.settings import Settings

from .auth import Access
from .job_numbers import JobNumbers
from .push.counts import Counts
from .push.departure import Departure
from .push.feeds import Feeds
from .push.fleet import Fleet
from .push.gate import Gate
from .push.hub import Hub
from .push.relay import Relay
from .push.wheel import Wheel
from .quotas import Quotas
from .snapshots import SnapshotReader


@dataclass(slots=True)
class Services:
    """The parts of a running server; `mount` makes them and puts them into ``app.state.livejobs``.

    Attributes:
        settings: As given to `mount`, or the process's.
        database: The job records.
        live: Redis, for publishing and reading; the relay has a connection of its own.
        hub: Who watches which job.
        feeds: Who follows which feed.
        relay: Brings what Redis publishes to the hub.
        reader: Reads a job's state for a new viewer.
        access: Who may see what.
        celery: The Celery app that sends jobs.
        quotas: What owners may start.
        gate: Lets connections in, or not.
        departure: Tells open streams and held requests that the app goes away.
        wheel: Looks after viewers of whom only the transport is left.
        fleet: All of those.
        job_numbers: How many jobs there are.
        counts: What viewers have been told, in numbers.
    """

    settings: Settings
    database: AsyncDatabase
    live: AsyncLive
    hub: Hub
    feeds: Feeds
    relay: Relay
    reader: SnapshotReader
    access: Access
    celery: Celery
    quotas: Quotas
    gate: Gate
    departure: Departure
    wheel: Wheel
    fleet: Fleet
    job_numbers: JobNumbers
    counts: Counts


def services(connection: HTTPConnection) -> Services:
    """The services of the app that serves a request or a WebSocket.

    Raises:
        RuntimeError: The app's lifespan did not run, or it has ended.
    """
    found = getattr(connection.scope["app"].state, "livejobs", None)
    if not isinstance(found, Services):
        raise RuntimeError(
            "livejobs is not running in this app: call livejobs_server.mount(app) and run the app "
            "with its lifespan (uvicorn does; a test client needs `with TestClient(app)`)."
        )
    return found
