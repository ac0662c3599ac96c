"""A job's Celery message, as it is kept in the row and as it is handed to the broker."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import logging
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.serialization import dumps

from .errors import MessageError
from .new_jobs import NewJob
from .patience import call_within
from .statements import JobRow

PATIENCE_SECONDS = 1.0
"""How long a caller waits for the database, and then for the broker."""
PRODUCER = "livejobs"
"""Name of the app of processes that have none of their own."""
HEADER = "livejobs"
"""Message header: {"attempt": fence, "row": whether a row was written, and what a row needs}."""

MAX_QUEUES = 1000
"""Of which it is remembered how they are declared."""

_log = logging.getLogger("livejobs.dispatch")

Message = dict[str, Any]


# -- kept ------------------------------------------------------------------------------------------


def encode(body: Any, arguments: Mapping[str, Any], app: Celery) -> Message:
    """The message as it would be published, in a form that JSON can hold.

    Raises:
        MessageError: Something in it cannot be serialized.
    """
    known = dict(arguments)
    encoded = encoded_body(body, known.pop("serializer", None) or app.conf.task_serializer)
    exchange = known.pop("exchange", None)
    exchange = getattr(exchange, "name", exchange) or ""
    routing_key = known.pop("routing_key", None)
    declare = [entity for entity in known.pop("declare", None) or () if isinstance(entity, Queue)]
    for gone in ("retry", "retry_policy", "timeout", "confirm_timeout"):
        known.pop(gone, None)
    try:
        headers = _plain(known.pop("headers"))
        properties = _plain({key: value for key, value in known.items() if value is not None})
    except TypeError as error:
        raise MessageError(f"A header of the task cannot be kept: {error}") from error
    return {
        **encoded,
        "headers": headers,
        "properties": properties,
        "exchange": exchange,
        "routing_key": routing_key,
        "queue": declare[0].name if declare else (routing_key or ""),
        "declare": _as_plain(declare[0]) if declare else None,
    }


def encoded_body(body: Any, serializer: str) -> Message:
    """The part of a message that its body is in.

    Raises:
        MessageError: It cannot be serialized.
    """
    try:
        content_type, content_encoding, data = dumps(body, serializer)
    except Exception as error:
        raise MessageError(
            f"The arguments of the task cannot be sent as {serializer}: {error}"
        ) from error
    binary = isinstance(data, bytes)
    return {
        "body": base64.b64encode(data).decode() if binary else data,
        "binary": binary,
        "content_type": content_type,
        "content_encoding": content_encoding,
    }


_plain_queues: dict[int, tuple[Queue, Any]] = {}
"""Queues by their identity: they last as long as their apps, and each message has one."""


def _as_plain(queue: Queue) -> Any:
    known = _plain_queues.get(id(queue))
    if known is None or known[0] is not queue:
        if len(_plain_queues) >= MAX_QUEUES:
            _plain_queues.clear()
        known = _plain_queues[id(queue)] = (queue, _plain(queue.as_dict(recurse=True)))
    return known[1]


_SCALARS: Final = frozenset((type(None), bool, int, float, str))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {
            str(key): item if type(item) in _SCALARS else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    raise TypeError(f"{type(value).__name__} is no JSON value")


def pop_delay(options: dict[str, Any]) -> float:
    """Seconds of the delay in a call's options, which is taken out.

    Celery would hand it to the broker where that can delay messages (RabbitMQ's quorum queues),
    and the job would be delayed twice.
    """
    eta, countdown = options.pop("eta", None), options.pop("countdown", None)
    return max(float(countdown) if countdown else seconds_until(eta) or 0.0, 0.0)


def take_delay(headers: dict[str, Any]) -> float:
    """Seconds until the message's eta, which is taken out: delays live in the database."""
    eta = headers.get("eta")
    headers["eta"] = None
    return max(seconds_until(eta) or 0.0, 0.0)


def seconds_until(moment: Any) -> float | None:
    """Seconds from now until a moment, ISO text or a datetime, in UTC where it names no zone."""
    if moment is None:
        return None
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return float((when - datetime.now(UTC)).total_seconds())


def fingerprint(message: Message) -> str:
    """Of the task and its arguments, to tell a repeated request from another one."""
    text = f"{message['headers']['task']}\n{message['content_type']}\n{message['body']}"
    return hashlib.sha256(text.encode()).hexdigest()


def message_of(row: JobRow) -> Message:
    """A row's message as it is sent now: too old only where the row says so."""
    message: Message = row.message
    if row.expires_at is not None or message["headers"].get("expires") is None:
        return message
    properties = {k: v for k, v in message["properties"].items() if k != "expiration"}
    headers = {**message["headers"], "expires": None}
    return {**message, "headers": headers, "properties": properties}


def delayed(new: NewJob) -> Message:
    """The message with the delay that otherwise its row keeps."""
    if new.delay <= 0:
        return dict(new.message)
    eta = datetime.now(UTC) + timedelta(seconds=new.delay)
    return {**new.message, "headers": {**new.message["headers"], "eta": eta.isoformat()}}


def header_of(row: JobRow) -> dict[str, Any]:
    """The message header that lets a worker claim this row as it stands."""
    return {"attempt": row.attempt, "row": True}


def header_of_new() -> dict[str, Any]:
    """The message header that lets a worker claim a row that was just written."""
    return {"attempt": 0, "row": True}


def header_without_row(new: NewJob) -> dict[str, Any]:
    """The message header from which a worker writes the row that could not be written."""
    told = {} if new.webhook_url is None else {"webhook_url": new.webhook_url}
    return {
        "attempt": 0,
        "row": False,
        "owner": new.owner,
        "tags": new.tags,
        "parent_id": new.parent_id,
        "idempotency_key": new.idempotency_key,
        "idempotency_hash": new.idempotency_hash,
        **told,
    }


# -- handed to the broker --------------------------------------------------------------------------


def send(app: Celery, message: Message, header: Mapping[str, Any]) -> bool:
    """Send a message, waiting at most a second; False: the broker did not take it in time."""
    try:
        call_within(PATIENCE_SECONDS, functools.partial(publish, app, message, header), "broker")
    except Exception as error:  # every broker's client has errors of its own
        _log.warning(
            "job %s could not be sent now, a keeper will send it: %s",
            message["headers"]["id"],
            str(error) or type(error).__name__,
        )
        return False
    return True


def declared(app: Celery, message: Message) -> list[Queue]:
    """The queue that a message goes to, to be declared before it is published.

    A broker refuses to declare a queue with other arguments than it has. An app that only sends
    knows none, so it takes those that were known where the message was made.
    """
    name, kept, known = message["queue"], message.get("declare"), app.amqp.queues
    if kept is not None and (app.main == PRODUCER or name not in known):
        fields = {key: value for key, value in kept.items() if key not in ("exchange", "bindings")}
        exchange = kept.get("exchange")
        if isinstance(exchange, Mapping):
            fields["exchange"] = Exchange(**exchange)
        return [Queue(**fields)]
    return [known[name]] if name and (name in known or not message["exchange"]) else []


def publish(app: Celery, message: Message, header: Mapping[str, Any]) -> None:
    """Hand a stored message to the broker; blocks as long as the broker's client does.

    Raises:
        kombu.exceptions.KombuError, OSError: The broker did not take it.
    """
    with _producer(app) as producer:
        # It may connect anew for this, to a broker that has forgotten its queues.
        _producers.met.pop(producer, None)
        _publish(
            producer,
            message,
            header,
            declare=declared(app, message),
            retry=True,
            retry_policy={
                "max_retries": 2,
                "interval_start": 0,
                "interval_step": 0.1,
                "interval_max": 0.2,
            },
        )


def publish_many(app: Celery, messages: Sequence[tuple[Message, Mapping[str, Any]]]) -> None:
    """Hand stored messages with their headers to the broker, in one go if it can take them so.

    There are no retries. After an error, all of them may have been taken, or some, or none.

    Raises:
        kombu.exceptions.KombuError, OSError: The broker did not take them.
    """
    with _producer(app) as producer:
        if len(messages) == 1:
            _publish_once(producer, app, *messages[0])
            return
        with producer.batch(max_size=len(messages)):
            for message, header in messages:
                _publish_once(producer, app, message, header)


def _publish_once(producer: Any, app: Celery, message: Message, header: Mapping[str, Any]) -> None:
    _publish(producer, message, header, declare=_undeclared(producer, declared(app, message)))


def _publish(producer: Any, message: Message, header: Mapping[str, Any], **options: Any) -> None:
    body = base64.b64decode(message["body"]) if message["binary"] else message["body"]
    producer.publish(
        body,
        exchange=message["exchange"],
        routing_key=message["routing_key"],
        content_type=message["content_type"],
        content_encoding=message["content_encoding"],
        headers={**message["headers"], HEADER: dict(header)},
        **options,
        **message["properties"],
    )


def _undeclared(producer: Any, queues: list[Queue]) -> list[Queue]:
    """Those of the queues that this thread's producer has not met yet.

    kombu remembers what was declared too, but it takes as long to find out as to send a message.
    """
    met: dict[int, Queue] = _producers.met.setdefault(producer, {})
    found = [queue for queue in queues if met.get(id(queue)) is not queue]
    if len(met) + len(found) > MAX_QUEUES:
        met.clear()
    met.update((id(queue), queue) for queue in found)
    return found


class _Producers(threading.local):
    """A producer of its own for each thread that sends.

    The app's pool is not used: its callers may hold all of its producers while they wait for us.
    """

    def __init__(self) -> None:
        self.by_app: weakref.WeakKeyDictionary[Celery, Any] = weakref.WeakKeyDictionary()
        self.met: weakref.WeakKeyDictionary[Any, dict[int, Queue]] = weakref.WeakKeyDictionary()


_producers = _Producers()


@contextlib.contextmanager
def _producer(app: Celery) -> Iterator[Any]:
    producer = _producers.by_app.get(app)
    if producer is None:
        producer = app.amqp.Producer(app.connection_for_write(), auto_declare=False)
        _producers.by_app[app] = producer
    try:
        yield producer
    except BaseException:
        del _producers.by_app[app]
        with contextlib.suppress(Exception):
            producer.connection.release()
        raise
