"""Messages of new jobs on their way to the broker, by one thread for each app.

It sends what has come meanwhile in one go where the broker can take it so. That the broker took
them is noted in the rows later, many at a time; a keeper sends a message once more of which that
note is lost, which does no harm: a job is claimed once.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence
from typing import Final, NamedTuple

from celery import Celery
from kombu.exceptions import KombuError

from .arrivals import Arrival, tell
from .database import get_database
from .errors import LivejobsError
from .gathering import Gatherer
from .messages import header_of_new, publish, publish_many
from .settings import settings_generation
from .transitions import sent

MOST = 200
"""Messages at a time."""
NOTED_AT_A_TIME = 200
NOTE_AFTER_SECONDS = 1.0
"""Well before a keeper takes a job for unsent, `FIRST_DISPATCH_SECONDS` after its creation."""

_log = logging.getLogger("livejobs.dispatch")


class _Carrier:
    """The hands of the thread that sends what an app enqueues."""

    def do(self, arrivals: Sequence[Arrival]) -> None:
        """Send these; what cannot be sent now is left to a keeper."""
        waiting = [arrival for arrival in arrivals if not arrival.given_up]
        try:
            self._send(waiting)
        finally:
            for arrival in waiting:
                if arrival.sent:
                    note_sent(arrival.new.id)
            tell(arrivals)

    def _send(self, arrivals: Sequence[Arrival]) -> None:
        if not arrivals:
            return
        try:
            publish_many(arrivals[0].app, [(it.new.message, header_of_new()) for it in arrivals])
        except Exception as error:  # every broker's client has errors of its own
            _log.debug("%d messages are sent one by one: %s", len(arrivals), error)
            self._send_singly(arrivals)
        else:
            for arrival in arrivals:
                arrival.sent = True

    def _send_singly(self, arrivals: Sequence[Arrival]) -> None:
        """Send each with retries, over a new connection, as long as the broker is there."""
        for number, arrival in enumerate(arrivals):
            if arrival.given_up:
                continue
            try:
                publish(arrival.app, arrival.new.message, header_of_new())
            except (KombuError, OSError) as error:
                _log_unsent(arrivals[number:], error)
                return
            except Exception as error:
                _log_unsent([arrival], error)
            else:
                arrival.sent = True

    def close(self) -> None:
        """Nothing is open but the thread's producer, which ends with it."""


def _log_unsent(arrivals: Sequence[Arrival], error: Exception) -> None:
    _log.warning(
        "job %s could not be sent now, nor %d others: a keeper will send them: %s",
        arrivals[0].new.id,
        len(arrivals) - 1,
        str(error) or type(error).__name__,
    )


class _Sending(NamedTuple):
    """A job whose message the broker took."""

    job_id: str
    attempt: int
    generation: int


class _Noter:
    """The hands of the thread that notes what was sent."""

    def do(self, sendings: Sequence[_Sending]) -> None:
        """Note it in the rows of those that no worker has claimed yet."""
        by_attempt: dict[int, list[str]] = {}
        for it in sendings:
            # Of a database that is another one's by now, nothing is said to this one.
            if it.generation == settings_generation():
                by_attempt.setdefault(it.attempt, []).append(it.job_id)
        try:
            for attempt, job_ids in by_attempt.items():
                get_database().run(sent(job_ids, attempt))
        except LivejobsError as error:
            _log.debug("%d messages will perhaps be sent again: %s", len(sendings), error)

    def close(self) -> None:
        """Nothing is open."""


_notes: Final[Gatherer[_Sending]] = Gatherer(
    "livejobs-notes", _Noter, NOTED_AT_A_TIME, linger=NOTE_AFTER_SECONDS
)
_by_app: weakref.WeakKeyDictionary[Celery, Gatherer[Arrival]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def carrier(app: Celery) -> Gatherer[Arrival]:
    """Where jobs are put to be sent by `app`."""
    found = _by_app.get(app)
    if found is None:
        with _lock:
            found = _by_app.get(app)
            if found is None:
                found = _by_app[app] = Gatherer("livejobs-carrier", _Carrier, MOST)
    return found


def note_sent(job_id: str, attempt: int = 0) -> None:
    """Have it noted in a job's row, some time, that the broker took its message."""
    _notes.put(_Sending(job_id, attempt, settings_generation()))
