"""`enqueue`: a job from async code, in a transaction of its own or in the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from celery import Celery, Task, current_app
from kombu.exceptions import KombuError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .arrivals import Made, pending_view
from .awaiting import arrived
from .database import execute, execute_async, get_database, schemas
from .errors import DatabaseUnavailable, JobConflict, MessageError, UnknownJob
from .interception import Take, interceptor
from .messages import PATIENCE_SECONDS, PRODUCER, Message, header_of, publish
from .models import view_of
from .outages import is_outage
from .patience import call_soon
from .reads import job, job_by_key
from .recording import (
    JobOptions,
    build,
    build_many,
    earlier_job,
    record_many,
    record_the_long_way,
    same_job,
)
from .settings import Settings, get_settings
from .statements import JobRow
from .transitions import NewJob, create
from .views import JobView, Status

_log = logging.getLogger("livejobs.dispatch")


@functools.cache
def producer_app(settings: Settings) -> Celery:
    """A Celery app that only sends, for processes that have none of their own."""
    app = Celery(PRODUCER, broker=settings.celery_broker_url, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=PATIENCE_SECONDS,
        task_ignore_result=True,
        task_always_eager=settings.task_always_eager,
    )
    return app


async def enqueue(
    task: str | Task,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    app: Celery | None = None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
    parent: str | None = None,
    idempotency_key: str | None = None,
    run_at: datetime | None = None,
    expires_in: float | None = None,
    queue: str | None = None,
    priority: int | None = None,
    session: AsyncSession | Session | None = None,
    job_id: str | None = None,
    webhook_url: str | None = None,
) -> JobView:
    """Create a job and send it, without blocking the event loop.

    Args:
        task: The task, or its name.
        app: The Celery app that sends; by default the task's, for a name the current app.
        owner: Whose job it is; by default found out as `resolve_owner` says.
        tags: Text to text, to find the job by.
        parent: Id of a job that is not over, whose child this is to be; its owner is the default.
            A task makes its own children by `RunningJob.spawn`, which makes none twice.
        idempotency_key: A second call with it returns the first call's job.
        run_at: Not to be run before; with a time zone.
        expires_in: Seconds after which a job that was not begun fails.
        priority: 0 to 9, as the broker takes it.
        session: The row joins this session's transaction, and is sent after the outermost commit.
        job_id: An id of the caller's own; by default a new one.
        webhook_url: To be told of its end; None: its owner's default; empty: nobody.

    Raises:
        IdempotencyConflict: The key came before with another task or other arguments.
        DatabaseUnavailable: The row could not be written; nothing was sent.
        MessageError: The arguments cannot be serialized.
        UnknownJob, JobConflict: There is no such parent, or it is over.
        WebhookError: No webhook can go to that URL, or none can be signed.
    """
    if isinstance(task, Task):
        app = app or task.app
    app = app or _default_app()
    name = task.name if isinstance(task, Task) else task
    take = interceptor()
    inline = take is None and app.conf.task_always_eager and name in app.tasks
    if parent is not None and take is None:
        its_owner = await _owner_of_parent(parent, session)
        owner = its_owner if owner is None else owner
    if inline and session is None:
        given = (args, kwargs, owner, tags, idempotency_key, job_id, parent, webhook_url)
        return await asyncio.to_thread(_run_inline, app, name, *given)
    options = _options_of(app, name, owner, tags, idempotency_key, parent, webhook_url)
    celery_options = {
        "task_id": job_id,
        "eta": run_at,
        "expires": expires_in,
        "queue": queue,
        "priority": priority,
    }
    make = functools.partial(build, app, name, args, dict(kwargs or {}), options, celery_options)
    if take is not None:
        return _hand_over(take, await asyncio.to_thread(make), session)
    if session is None:
        return await _enqueue(app, make)
    new = await asyncio.to_thread(make)
    if inline:
        given = (args, kwargs, owner, tags, idempotency_key, new.id, parent, webhook_url)
        run = functools.partial(_run_inline, app, name, *given)
        _after_commit(session, functools.partial(_inline_quietly, run, session))
        return pending_view(new)
    return view_of(await _join(session, new, app))


async def enqueue_many(
    task: str | Task,
    calls: Iterable[Sequence[Any]],
    *,
    app: Celery | None = None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_at: datetime | None = None,
    expires_in: float | None = None,
    queue: str | None = None,
    priority: int | None = None,
) -> list[JobView]:
    """Create many jobs of a task and send them, some hundreds at a time.

    Args:
        task: The task, or its name.
        calls: The positional arguments of each job.
        app: As for `enqueue`, and so are all others.

    Raises:
        DatabaseUnavailable: The database is away; the jobs that were written before go on.
        MessageError: The arguments of a job cannot be serialized; none was created.
    """
    if isinstance(task, Task):
        app = app or task.app
    app = app or _default_app()
    name = task.name if isinstance(task, Task) else task
    options = _options_of(app, name, owner, tags)
    take = interceptor()
    if take is None and app.conf.task_always_eager and name in app.tasks:
        inline = functools.partial(_run_inline, app, name)
        return [await asyncio.to_thread(inline, args, None, owner, tags) for args in calls]
    celery_options = {"eta": run_at, "expires": expires_in, "queue": queue, "priority": priority}
    make = functools.partial(build_many, app, name, calls, options, celery_options)
    news = await asyncio.to_thread(make)
    if take is not None:
        return [pending_view(take(new)) for new in news]
    made = await asyncio.to_thread(record_many, app, news)
    found = {row.id: row for row in made}
    return [pending_view(new, found.get(new.id)) for new in news]


def _hand_over(take: Take, new: NewJob, session: AsyncSession | Session | None) -> JobView:
    """Give the job to the test that takes what is enqueued, once it would be sent."""
    if session is None:
        return pending_view(take(new))
    _after_commit(session, functools.partial(take, new))
    return pending_view(new)


def _default_app() -> Celery:
    app = current_app._get_current_object()  # noqa: SLF001 - the way Celery itself does it
    return producer_app(get_settings()) if app.main in (None, "default") else app


def _options_of(
    app: Celery,
    name: str,
    owner: str | None,
    tags: Mapping[str, str] | None,
    idempotency_key: str | None = None,
    parent: str | None = None,
    webhook_url: str | None = None,
) -> JobOptions:
    describe = getattr(app.tasks.get(name), "job_options", None)
    options = JobOptions() if describe is None else describe()
    return replace(
        options,
        owner=owner,
        tags=tags,
        idempotency_key=idempotency_key,
        parent_id=parent,
        webhook_url=webhook_url,
    )


async def _owner_of_parent(parent: str, session: AsyncSession | Session | None) -> str:
    """Whose the job is that is to have a child.

    Raises:
        UnknownJob, JobConflict: There is no such job, or it is over.
    """
    translate = {"schema_translate_map": schemas(get_settings())}
    if session is None:
        row = await asyncio.to_thread(lambda: get_database(PATIENCE_SECONDS).read(job(parent)))
    elif isinstance(session, AsyncSession):
        # It may have been made in this transaction.
        row = await execute_async(await session.connection(), job(parent), translate)
    else:
        row = execute(session.connection(), job(parent), translate)
    if row is None:
        raise UnknownJob(parent)
    if Status(row.status).is_final:
        raise JobConflict(parent, row.status, "given children")
    return str(row.owner)


def _run_inline(
    app: Celery,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    owner: str | None,
    tags: Mapping[str, str] | None,
    idempotency_key: str | None = None,
    job_id: str | None = None,
    parent: str | None = None,
    webhook_url: str | None = None,
) -> JobView:
    result = app.tasks[name].apply_async(
        tuple(args),
        dict(kwargs or {}),
        task_id=job_id,
        owner=owner,
        tags=tags,
        parent=parent,
        idempotency_key=idempotency_key,
        webhook_url=webhook_url,
    )
    row = get_database().read(job_by_key(result.id, "", None))
    if row is None:
        raise MessageError(f"{name} is not tracked, so there is no job to show: set tracked=True.")
    return view_of(row)


async def _enqueue(app: Celery, make: Callable[[], NewJob]) -> JobView:
    try:
        arrival = await arrived(app, make)
        new = arrival.new
        if arrival.made is not None:
            return pending_view(new, arrival.made)
        recorded = await asyncio.to_thread(record_the_long_way, app, new, doubtful=arrival.doubtful)
    except TimeoutError as error:
        raise DatabaseUnavailable(
            "The database did not take the job within a second: try again."
        ) from error
    return pending_view(new, recorded) if isinstance(recorded, Made) else view_of(recorded)


# -- in the caller's transaction -------------------------------------------------------------------

_WAITING = "livejobs_waiting"


async def _join(session: AsyncSession | Session, new: NewJob, app: Celery) -> JobRow:
    """Write the row in the caller's transaction; it is sent after the outermost commit."""
    translate = {"schema_translate_map": schemas(get_settings())}
    try:
        if isinstance(session, AsyncSession):
            connection = await session.connection()
            row = await execute_async(connection, create(new), translate)
            found = None if row else await execute_async(connection, earlier_job(new), translate)
        else:
            row = execute(session.connection(), create(new), translate)
            found = None if row else execute(session.connection(), earlier_job(new), translate)
    except Exception as error:
        if not is_outage(error):
            raise
        raise DatabaseUnavailable(f"The job's row could not be written: {error}") from error
    if row is None:
        return same_job(found, new)
    if new.delay <= 0:
        send = functools.partial(_send_quietly, app, new.message, header_of(row))
        # Not waited for: the commit is the caller's, and a keeper sends what gets lost here.
        _after_commit(session, functools.partial(call_soon, send, "broker"))
    return row


def _after_commit(session: AsyncSession | Session, act: Callable[[], object]) -> None:
    """Call `act` after the outermost commit, and not at all after a rollback."""
    sync = session.sync_session if isinstance(session, AsyncSession) else session
    waiting = sync.info.setdefault(_WAITING, [])
    if not event.contains(sync, "after_commit", _committed):
        event.listen(sync, "after_commit", _committed)
        event.listen(sync, "after_rollback", _rolled_back)
    waiting.append(act)


def _committed(session: Session) -> None:
    if session.in_nested_transaction():
        return  # a savepoint; the outermost commit is still to come
    for act in session.info.pop(_WAITING, ()):
        act()


def _rolled_back(session: Session) -> None:
    # Called for the outermost transaction only. What a savepoint took back is sent all the same:
    # without its row, the worker drops it.
    session.info.pop(_WAITING, None)


def _send_quietly(app: Celery, message: Message, header: Mapping[str, Any]) -> None:
    try:
        publish(app, message, header)
    except (KombuError, OSError) as error:
        _log.warning("job %s waits for a keeper: %s", message["headers"]["id"], error)


def _inline_quietly(run: Callable[[], object], session: AsyncSession | Session) -> None:
    """Run a task inline after a commit, which it must not break; its job says how it ended."""
    try:
        if isinstance(session, AsyncSession):
            # Not on the event loop's thread: the task may want a loop of its own.
            with ThreadPoolExecutor(1, thread_name_prefix="livejobs-inline") as threads:
                threads.submit(contextvars.copy_context().run, run).result()
        else:
            run()
    except Exception:
        _log.exception("a task that was run inline after a commit failed")
