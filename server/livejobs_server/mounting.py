"""Puts livejobs into a FastAPI app: its routes, its hub, its keeper, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from celery import Celery
from celery.app import app_or_default
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from livejobs import traces
from livejobs.database import AsyncDatabase
from livejobs.dispatch import producer_app
from livejobs.errors import DatabaseUnavailable
from livejobs.keeper import Keeper
from livejobs.live import AsyncLive
from livejobs.settings import Settings, configure, configured, get_settings

from .access_log import hide_tickets
from .auth import Access, Authenticate, ask_headers
from .deliveries import Deliveries
from .endpoints import build_endpoints, cors
from .feed_reader import FeedReader
from .isolation import OwnPaths, RequestOwner
from .job_numbers import JobNumbers
from .lane import Lane
from .numbers import told_to_siblings
from .problems import ApiProblem, handle_problem
from .push.counts import Counts
from .push.departure import Departure
from .push.feeds import Feeds
from .push.fleet import Fleet
from .push.gate import Gate
from .push.hub import Hub
from .push.open_files import open_files
from .push.relay import Relay
from .push.wheel import Wheel
from .quotas import Quotas
from .services import Services
from .tables import check_tables
from .uploads import clear_abandoned

CANCELLATIONS: Final = 3
CANCEL_AGAIN_SECONDS: Final = 2.0
"""How long a part may take to end before it is asked again, and at last left behind."""

_log = logging.getLogger("livejobs.server")


def mount(
    app: FastAPI,
    prefix: str = "",
    authenticate: Authenticate | None = None,
    settings: Settings | None = None,
    *,
    celery: Celery | None = None,
    pages: bool = False,
) -> None:
    """Add livejobs to an app: call it once, before the app starts.

    The app keeps its own lifespan, errors, middleware, documentation and routes, also those that
    are declared after this call. `get_api_key` names the viewer in its endpoints, and what they
    enqueue belongs to that viewer.

    Args:
        app: The app.
        prefix: Path under which the endpoints lie, like ``/jobs``; empty: ``/v1/…`` at the root.
        authenticate: Names the viewer of a request or a WebSocket, or returns None; sync or async.
            It takes the place of livejobs' API keys.
        settings: In place of the process's; jobs enqueued in this process go by them too.
        celery: The Celery app that sends the jobs of the endpoints, and those that are due; None:
            the process's current one, or where there is none the broker of the settings.
        pages: Serve livejobs' own pages too, at `prefix` and ``/``, for whom `authenticate` names.

    Raises:
        SettingsError: A setting cannot be used.
        RuntimeError: The app has livejobs already.
    """
    install(app, prefix, authenticate, settings, celery, documented=bool(prefix), pages=pages)


def install(
    app: FastAPI,
    prefix: str = "",
    authenticate: Authenticate | None = None,
    settings: Settings | None = None,
    celery: Celery | None = None,
    *,
    documented: bool,
    pages: bool,
) -> None:
    """`mount`; with `documented` the endpoints serve ``/docs`` and ``/openapi.json``."""
    if any(isinstance(route, OwnPaths) for route in app.routes):
        raise RuntimeError("livejobs is mounted in this app already.")
    if settings is not None and settings != get_settings():
        configure(owner_of=configured()[1], **settings.model_dump())
    settings = settings or get_settings()
    prefix = prefix.rstrip("/")
    # At the root of a user's app this path may well be theirs.
    numbers = documented
    endpoints = build_endpoints(settings, documented=documented, pages=pages, numbers=numbers)
    lane = Lane(endpoints, cors(settings))
    own = OwnPaths(prefix, endpoints, name="livejobs", find=lane.find)
    app.router.routes.append(own)
    _prepend_lifespan(app, endpoints, settings, authenticate, celery)
    # The only error of ours that a user's endpoint can meet: `get_api_key` raises it.
    app.exception_handlers.setdefault(ApiProblem, handle_problem)
    # Innermost, so that the user's function finds what the other middleware did.
    app.user_middleware.append(
        Middleware(RequestOwner, own=own, authenticate=authenticate or ask_headers)
    )


def _prepend_lifespan(
    app: FastAPI,
    endpoints: FastAPI,
    settings: Settings,
    authenticate: Authenticate | None,
    celery: Celery | None,
) -> None:
    theirs: Any = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(served: Any) -> AsyncIterator[Any]:
        async with _running(settings, authenticate, celery) as found:
            app.state.livejobs = endpoints.state.livejobs = found
            try:
                async with theirs(served) as state:
                    yield state
            finally:
                del app.state.livejobs, endpoints.state.livejobs

    app.router.lifespan_context = lifespan


@contextlib.asynccontextmanager
async def _running(
    settings: Settings, authenticate: Authenticate | None, celery: Celery | None
) -> AsyncIterator[Services]:
    """The services, with relay and keeper at work.

    Raises:
        MigrationsNeeded: The tables are missing or too old.
    """
    hide_tickets()
    open_files.keep(settings.reserved_files)
    async with contextlib.AsyncExitStack() as stack:
        database = AsyncDatabase(settings)
        stack.push_async_callback(database.dispose)
        await _check_start(database)
        await run_in_threadpool(clear_abandoned, settings)
        live = AsyncLive(settings)
        stack.push_async_callback(live.close)
        counts = Counts()
        hub, feeds, reader = Hub(counts), Feeds(), FeedReader(database, live, settings)
        relay = Relay(hub, feeds, reader, settings)
        sending = celery or _celery_of_process(settings)
        keeper = Keeper(settings, sending)
        await stack.enter_async_context(_at_work("keeper", keeper.run))
        if traces.are_on():
            relay.deliveries = deliveries = Deliveries(database)
            stack.push_async_callback(deliveries.stop)
        await stack.enter_async_context(_at_work("relay", relay.run))
        access = Access(settings, database, authenticate)
        departure = Departure(settings.drain_spread, settings.drain_linger)
        wheel, numbers = Wheel(), JobNumbers(database)
        stack.push_async_callback(numbers.stop)
        fleet = Fleet(settings, wheel, counts, relay.outage)
        await stack.enter_async_context(wheel.turning())
        # Those who are told to go are given a moment to hear it.
        stack.push_async_callback(departure.wait_for_all)
        # Before the relay ends, every open stream is told to.
        stack.callback(departure.begin)
        found = Services(
            settings=settings,
            database=database,
            live=live,
            hub=hub,
            feeds=feeds,
            relay=relay,
            reader=reader,
            access=access,
            celery=sending,
            quotas=Quotas(settings, database, live),
            gate=Gate(settings),
            departure=departure,
            wheel=wheel,
            fleet=fleet,
            job_numbers=numbers,
            counts=counts,
        )
        await stack.enter_async_context(told_to_siblings(found))
        yield found


def _celery_of_process(settings: Settings) -> Celery:
    """The user's Celery app, where this process has one, else one that only sends.

    Looked up here, on the thread that imported it: Celery keeps its current app by thread.
    """
    current: Celery = app_or_default()
    return producer_app(settings) if current.main in (None, "default") else current


async def _check_start(database: AsyncDatabase) -> None:
    try:
        await check_tables(database)
    except DatabaseUnavailable as error:
        # It may come later; until then every request that needs it is told so.
        _log.warning("starting without the database: %s", error)


@contextlib.asynccontextmanager
async def _at_work(name: str, run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a part of the server until the end of the context, and again if it should fail."""
    task = asyncio.create_task(_run_again(name, run), name=f"livejobs-{name}")
    try:
        yield
    finally:
        if not await _stop(task):
            _log.error("the %s does not end and is left behind", name)


async def _stop(task: asyncio.Task[None]) -> bool:
    """Cancel a task until it has ended; False where it does not end.

    Once is not enough on Python 3.11: `asyncio.wait_for`, which redis-py connects with, forgets a
    cancellation that comes in the moment in which it is done.
    """
    for _ in range(CANCELLATIONS):
        task.cancel()
        if (await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS))[0]:
            return True
    return False


async def _run_again(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:
            _log.exception("the %s failed and is started again", name)
            await asyncio.sleep(1.0)
        else:
            return
