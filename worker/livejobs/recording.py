"""From a call to a message in the broker, by way of the database.

Celery itself builds every message: it is taken where Celery hands it to the producer, written into
the job's row as published, and then sent. So a later dispatch from the row is complete: chains,
links, routing, priority, serializer and time limits are in it.

The caller waits at most a second for the database and a second for the broker. A row that could
not be written in that time appears when the job is claimed; a message that could not be sent is
sent by a keeper.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery
from celery.exceptions import AlwaysEagerIgnored
from celery.utils import uuid

from .arrivals import Arrival, Made
from .database import Database, execute, get_database
from .errors import DatabaseUnavailable, IdempotencyConflict, MessageError
from .following import until_taken
from .intake import intake
from .interception import interceptor
from .messages import (
    PATIENCE_SECONDS,
    Message,
    delayed,
    encode,
    fingerprint,
    header_of,
    header_without_row,
    pop_delay,
    seconds_until,
    send,
    take_delay,
)
from .moulds import Mould, are_alike
from .outgoing import carrier, note_sent
from .owners import resolve_owner
from .patience import call_within
from .reads import job, job_by_key
from .running import find_running
from .statements import JobRow, Program
from .traces import sending
from .transitions import NewJob, create, create_many, take_over
from .views import storable_text
from .webhooks import checked_url

_log = logging.getLogger("livejobs.dispatch")
MANY = 500
"""Jobs in one transaction, where one caller has many: on SQLite all other writers wait for it."""
Recorded = JobRow | Made
"""A row that was there before, or what is known of a new one."""
_send_task = Celery.send_task  # as it is before `task` has it record jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What livejobs wants to know of a job beyond its Celery message.

    Attributes:
        owner: Whose job it is; None: found out when it is enqueued.
        parent_id: The job whose child it is; None: of none.
        ordinal: The how manieth of those that its parent spawned.
        max_attempts: Executions allowed; None: no limit, or not known here.
        rerun_when_lost: A lost execution may be repeated.
        webhook_url: To be told of its end; None: its owner's default; empty: nobody.
    """

    owner: str | None = None
    tags: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    parent_id: str | None = None
    ordinal: int | None = None
    max_attempts: int | None = None
    rerun_when_lost: bool = False
    webhook_url: str | None = None

    def of_child(
        self, parent_id: str, ordinal: int | None, owner: str, tags: Mapping[str, str] | None
    ) -> JobOptions:
        """The same for a job that is a child; its owner is its parent's."""
        return replace(self, parent_id=parent_id, ordinal=ordinal, owner=owner, tags=tags)


def clean_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags as they are stored: text to text."""
    return {storable_text(str(k)): storable_text(str(v)) for k, v in (tags or {}).items()}


# -- the message -----------------------------------------------------------------------------------


class RecordingProducer:
    """Stands in for kombu's producer while Celery builds a message: records, then sends.

    Args:
        app: The app that sends.
        options: What the row needs beyond the message.
        producer: The caller's producer, if it gave one.
        delay: Seconds until the job is to run, where that is not in the message.
        only_record: Keep the job in `new` and do nothing with it.

    Attributes:
        new: The job of the message, once there is one; an earlier one where a test takes it and its
            idempotency key came before.
        row: Its row, where it was written.
    """

    def __init__(
        self,
        app: Celery,
        options: JobOptions,
        producer: Any = None,
        *,
        delay: float = 0.0,
        only_record: bool = False,
    ) -> None:
        self.app = app
        self.new: NewJob | None = None
        self.row: Recorded | None = None
        self._made_of: tuple[Any, str] | None = None
        self._options = options
        self._producer = producer
        self._delay = delay
        self._only_record = only_record
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> RecordingProducer:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def connection(self) -> Any:
        """For the questions Celery asks of a connection; it is not connected for them."""
        if self._producer is None:
            return self.app.producer_pool.connections.connection
        return self._producer.connection

    def revive(self, connection: Any) -> None:
        """Nothing to do: each message is sent over a connection of its own choice."""

    def __getattr__(self, name: str) -> Any:
        # Result backends that use the producer themselves (rpc) get a real one.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> Any:
        if self._producer is None:
            self._producer = self._resources.enter_context(self.app.producer_or_acquire())
        return self._producer

    def publish(self, body: Any, **arguments: Any) -> None:
        """Take the message of a task; other messages (Celery's events) pass through."""
        headers = arguments.get("headers") or {}
        if self.new is not None or "id" not in headers or "task" not in headers:
            self._real().publish(body, **arguments)
            return
        with sending(headers["task"], headers["id"], headers):
            self._take(encode(body, arguments, self.app), headers)
        self._made_of = body, arguments.get("serializer") or self.app.conf.task_serializer

    def mould(self) -> Mould | None:
        """Makes more jobs like the one that was taken; None: Celery has to build each."""
        new = self.new
        if new is None or self._made_of is None or not are_alike(self.app):
            return None
        if new.delay > 0 or new.expires_in is not None:
            return None  # in a while these are other numbers of seconds
        return Mould(self.app, new, *self._made_of)

    def _take(self, message: Message, headers: Mapping[str, Any]) -> None:
        delay = self._delay or take_delay(message["headers"])
        running = find_running(headers["id"])
        if running is not None:
            # A retry, or a replacement under the same id: a transition of the running job.
            running.next_message = (message, delay, headers["task"])
            return
        self.new = self._job(message, delay)
        if self._only_record:
            return
        take = interceptor()
        if take is None:
            self.row = until_taken(self.app, functools.partial(record_and_send, self.app, self.new))
        else:
            self.new = take(self.new)

    def _job(self, message: Message, delay: float) -> NewJob:
        headers, options = message["headers"], self._options
        key = options.idempotency_key
        return NewJob(
            id=headers["id"],
            task=headers["task"],
            queue=message["queue"],
            message=message,
            owner=resolve_owner(options.owner, self.app),
            tags=clean_tags(options.tags),
            parent_id=options.parent_id,
            ordinal=options.ordinal,
            idempotency_key=key,
            idempotency_hash=None if key is None else fingerprint(message),
            delay=delay,
            expires_in=seconds_until(headers.get("expires")),
            max_attempts=options.max_attempts,
            rerun_when_lost=options.rerun_when_lost,
            webhook_url=checked_url(options.webhook_url),
        )


def build(
    app: Celery,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    options: JobOptions,
    celery_options: Mapping[str, Any],
) -> NewJob:
    """Let Celery build the message, without sending it.

    Args:
        celery_options: Options of `Celery.send_task`; those that are None are left out.

    Raises:
        MessageError: The arguments cannot be serialized.
    """
    return build_first(app, name, args, kwargs, options, celery_options)[0]


def build_first(
    app: Celery,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    options: JobOptions,
    celery_options: Mapping[str, Any],
) -> tuple[NewJob, Mould | None]:
    """`build`, and what makes more jobs like it; None: Celery has to build each."""
    given = {key: value for key, value in celery_options.items() if value is not None}
    given.setdefault("task_id", uuid())
    # Nobody waits here for the result, so that Celery need not ask the result backend.
    ignore_result = given.pop("ignore_result", None)
    delay = pop_delay(given)
    recording = RecordingProducer(app, options, delay=delay, only_record=True)
    with recording as producer, _without_eager_warning(app):
        _send_task(app, name, args, kwargs, producer=producer, ignore_result=True, **given)
    if producer.new is None:
        raise MessageError(f"Celery sent no message for {name}: is task_always_eager set?")
    producer.new.message["headers"]["ignore_result"] = ignore_result
    return producer.new, producer.mould()


def build_many(
    app: Celery,
    name: str,
    calls: Iterable[Sequence[Any]],
    options: JobOptions,
    celery_options: Mapping[str, Any],
) -> list[NewJob]:
    """`build` for many jobs that differ in their positional arguments.

    Raises:
        MessageError: The arguments of one cannot be serialized.
    """
    news: list[NewJob] = []
    mould = None
    for args in calls:
        if mould is None:
            new, mould = build_first(app, name, args, {}, options, celery_options)
        else:
            new = mould.cast(uuid(), args)
        news.append(new)
    return news


@contextlib.contextmanager
def _without_eager_warning(app: Celery) -> Iterator[None]:
    """Celery warns that `send_task` really sends, also in eager mode; here nothing is sent."""
    if not app.conf.task_always_eager:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlwaysEagerIgnored)
        yield


# -- the row ---------------------------------------------------------------------------------------


def record_and_send(app: Celery, new: NewJob) -> Recorded | None:
    """Write the row and send the message, each within a second, so that nothing is lost.

    Returns:
        The row; an older one where the idempotency key or the id had created it before; None
        where it could not be written in time: the worker writes it.

    Raises:
        IdempotencyConflict: The key came before with something else.
        DatabaseUnavailable: Neither the database nor the broker took the job.
    """
    try:
        return _record_and_send(app, new)
    except (DatabaseUnavailable, TimeoutError) as error:
        _log.warning("job %s is sent without its row, which its worker will write", new.id)
        if not send(app, delayed(new), header_without_row(new)):
            raise DatabaseUnavailable(
                "The job was not accepted: neither the database nor the broker answers. "
                "Check DATABASE_URL and the broker's URL, then try again."
            ) from error
        return None


def _record_and_send(app: Celery, new: NewJob) -> Recorded:
    began, doubtful = time.monotonic(), False
    if new.parent_id is None and not intake.is_mine and not carrier(app).is_mine:
        arrival = Arrival(app, new, began + PATIENCE_SECONDS)
        intake.put(arrival)
        if _has_its_row(arrival) and arrival.made is not None:
            return arrival.made
        doubtful = arrival.doubtful
    left = PATIENCE_SECONDS - (time.monotonic() - began)
    return record_the_long_way(app, new, max(left, 0.0), doubtful=doubtful)


def _has_its_row(arrival: Arrival) -> bool:
    """Wait a second for the row, and another one for the broker.

    Raises:
        TimeoutError: The row was not written in time, and will not be.
    """
    if arrival.wait(PATIENCE_SECONDS):
        return arrival.made is not None
    if arrival.made is None:
        intake.look(PATIENCE_SECONDS / 2)
        arrival.given_up = True
        if arrival.made is None:
            raise TimeoutError("the caller did not wait for it")
    if not arrival.wait(PATIENCE_SECONDS):
        arrival.given_up = True
        carrier(arrival.app).look(PATIENCE_SECONDS / 2)
        _log.warning("job %s could not be sent now, a keeper will send it", arrival.new.id)
    return True


def record_the_long_way(
    app: Celery, new: NewJob, patience: float | None = None, *, doubtful: bool = False
) -> Recorded:
    """Write the row and send the message, alone, on a connection of their own.

    Args:
        patience: Seconds to wait for the row; None: as long as ever.
        doubtful: The row may have been written already, when the short way failed.

    Raises:
        TimeoutError: It was not written in time, and will not be.
    """
    given_up = threading.Event()
    database = get_database(PATIENCE_SECONDS)
    record = functools.partial(_record, database, new, given_up, doubtful)
    try:
        row, is_new = call_within(
            PATIENCE_SECONDS if patience is None else patience, record, "database"
        )
    except TimeoutError:
        given_up.set()
        raise
    if is_new and new.delay <= 0:
        send_new(app, row)
    return row


def record_many(app: Celery, news: Sequence[NewJob]) -> list[Made]:
    """Write the rows of many new jobs, some hundreds in a transaction, and send their messages.

    Database and broker are waited for as long as they take some. What the broker does not take, a
    keeper sends.

    Returns:
        What is known of each row that is new.

    Raises:
        DatabaseUnavailable: The database is away; the jobs of earlier transactions go on.
    """
    arrivals = [Arrival(app, new) for new in news]
    for arrival in arrivals:
        intake.put(arrival)
    _wait_while_it_moves(app, arrivals)
    made = [arrival.made for arrival in arrivals if arrival.made is not None]
    left = [arrival.new for arrival in arrivals if arrival.made is None]
    for start in range(0, len(left), MANY):
        some = left[start : start + MANY]
        rows = get_database().run(create_many(some))
        made += (Made(row.id, row.created_at, row.run_at) for row in rows)
        new_ids = {row.id for row in rows}
        send_many(app, [new for new in some if new.id in new_ids])
    return made


def send_many(app: Celery, news: Sequence[NewJob]) -> None:
    """Send jobs whose rows were just written; a keeper does it where this fails."""
    arrivals = [Arrival(app, new) for new in news if new.delay <= 0]
    for arrival in arrivals:
        carrier(app).put(arrival)
    _wait_while_it_moves(app, arrivals)


def _wait_while_it_moves(app: Celery, arrivals: Sequence[Arrival]) -> None:
    carries = carrier(app)
    rounds = (intake.rounds, carries.rounds)
    for number, arrival in enumerate(arrivals):
        while not arrival.wait(PATIENCE_SECONDS):
            before, rounds = rounds, (intake.rounds, carries.rounds)
            if before == rounds:
                for gatherer in (intake, carries):
                    gatherer.look(PATIENCE_SECONDS / 2)
                for left in arrivals[number:]:
                    left.given_up = True
                _log.warning("%d jobs are not waited for any longer", len(arrivals) - number)
                return


def _record(
    database: Database, new: NewJob, given_up: threading.Event, doubtful: bool
) -> tuple[JobRow, bool]:
    """Write the row; after a broken connection it may be there, and is new all the same."""
    try:
        row, is_new = _write(database, new, given_up)
    except DatabaseUnavailable:
        found = database.read(job(new.id))
        if found is None or found.message != new.message:
            raise
        return found, True
    return row, is_new or (doubtful and row.message == new.message)


def _write(database: Database, new: NewJob, given_up: threading.Event) -> tuple[JobRow, bool]:
    with database.begin() as connection:
        row = execute(connection, create(new))
        if row is None and new.idempotency_key is None:
            # As in plain Celery, an id whose job is over may be used again.
            before = execute(connection, job(new.id))
            if before is not None and not _is_sent_again(before, new):
                row = execute(connection, take_over(new))
        if given_up.is_set():
            raise TimeoutError("the caller did not wait for it")
    if row is not None:
        return row, True
    return same_job(database.read(earlier_job(new)), new), False


def _is_sent_again(row: JobRow, new: NewJob) -> bool:
    """Whether the same task sends the same step once more, after its own message came twice."""
    parent = new.message["headers"].get("parent_id")
    headers = row.message.get("headers", {})
    return parent is not None and parent == headers.get("parent_id")


def earlier_job(new: NewJob) -> Program:
    """Read the job that has the id, or the idempotency key, of a new one."""
    return job_by_key(new.id, new.owner, new.idempotency_key)


def same_job(row: JobRow | None, new: NewJob) -> JobRow:
    """The job that was there before, if it is what is asked for now.

    Raises:
        IdempotencyConflict: The key came before with something else.
        DatabaseUnavailable: There is none any more.
    """
    if row is None:
        raise DatabaseUnavailable("The job was deleted while it was asked for: try again.")
    if row.id != new.id and row.idempotency_hash != new.idempotency_hash:
        raise IdempotencyConflict(row.id)
    if new.idempotency_key is None:
        _log.warning("job %s is %s already and is not sent again", row.id, row.status)
    return row


def send_new(app: Celery, row: JobRow) -> None:
    """Send a job whose row was just written; a keeper does it where this fails."""
    if send(app, row.message, header_of(row)):
        note_sent(row.id, row.attempt)
