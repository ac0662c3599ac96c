"""Jobs of one task that differ in their ids and arguments: Celery builds one, the others are cast.

Nearly all that Celery does for a message finds out what is the same for all of a task's: route,
options, limits, chain. Where somebody looks at each message, such as a router or a signal's
receiver, there is no mould, and Celery builds them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute, Router
from celery.signals import after_task_publish, before_task_publish, task_sent
from celery.utils.saferepr import saferepr

from .messages import Message, encoded_body
from .new_jobs import NewJob
from .traces import are_on

_SIGNALS: Final = (before_task_publish, after_task_publish, task_sent)
_OWN: Final = ("id", "message", "ordinal")
"""What of a job is its own."""
_PLAIN: Final = frozenset((bool, int, float, type(None)))
_PLAIN_CHARACTERS: Final = 100
"""Of a text that is shown as it is."""


def are_alike(app: Celery) -> bool:
    """Whether messages of one task differ only in what `Mould.cast` is given."""
    amqp = app.amqp
    return (
        type(app).send_task is Celery.send_task
        and type(amqp) is AMQP
        and getattr(amqp.create_task_message, "__func__", None) is AMQP.as_task_v2
        and type(amqp.router) is Router
        and all(type(route) is MapRoute for route in amqp.routes)
        and not any(signal.receivers for signal in _SIGNALS)
        and not app.conf.task_send_sent_event
        and not are_on()
        # Libraries for tracing wrap this to give each message headers of its own.
        and not hasattr(Task.apply_async, "__wrapped__")
    )


class Mould:
    """Makes jobs like a first one, which neither waits nor expires, nor has an idempotency key.

    Args:
        app: The app that sends them.
        first: What Celery built.
        body: What the first message's body was made of: args, kwargs, and what follows the job.
        serializer: Makes the bodies.
    """

    def __init__(
        self, app: Celery, first: NewJob, body: tuple[Any, Any, Any], serializer: str
    ) -> None:
        self._message: Message = first.message
        self._same = {
            field.name: getattr(first, field.name)
            for field in fields(first)
            if field.name not in _OWN
        }
        self._follows = body[2]
        self._serializer = serializer
        self._is_root = first.message["headers"]["root_id"] == first.id
        self._longest: int = app.amqp.argsrepr_maxsize
        self._levels: int = app.conf.task_repr_maxlevels

    def cast(
        self,
        job_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        ordinal: int | None = None,
    ) -> NewJob:
        """A job with these arguments.

        Args:
            ordinal: The how manieth child of its parent it is; None: of none, or not known.

        Raises:
            MessageError: They cannot be serialized.
            TypeError: `args` is no list and no tuple.
        """
        args, kwargs = args or (), kwargs or {}
        if not isinstance(args, list | tuple):
            raise TypeError("task args must be a list or tuple")
        message = self._message.copy()
        message |= encoded_body((args, kwargs, self._follows), self._serializer)
        headers = message["headers"].copy()
        headers["id"] = job_id
        if self._is_root:
            headers["root_id"] = job_id
        headers["argsrepr"] = self._shown(args)
        headers["kwargsrepr"] = self._shown(kwargs) if kwargs else "{}"
        message["headers"] = headers
        message["properties"] = message["properties"] | {"correlation_id": job_id}
        return NewJob(**self._same, id=job_id, message=message, ordinal=ordinal)

    def _shown(self, value: Any) -> str:
        shown = _shown_plainly(value)
        if shown is None or len(shown) >= self._longest:
            shown = saferepr(value, self._longest, maxlevels=self._levels)
        return shown


def _shown_plainly(args: Any) -> str | None:
    """What `saferepr` says of a few plain values, a good deal sooner; None: ask it."""
    if type(args) is tuple:
        left, right = "(", ",)" if len(args) == 1 else ")"
    elif type(args) is list:
        left, right = "[", "]"
    else:
        return None
    shown = []
    for value in args:
        if type(value) in _PLAIN:
            shown.append(str(value))
        elif type(value) is str and len(value) <= _PLAIN_CHARACTERS and "'" not in value:
            shown.append(f"'{value}'")
        else:
            return None
    return f"{left}{', '.join(shown)}{right}"
