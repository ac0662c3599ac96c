"""Every error livejobs raises, in one tree.

::

    LivejobsError
    ├── SettingsError            a setting is missing or cannot be used
    ├── DatabaseUnavailable      the database does not answer
    ├── MigrationsNeeded         the database's tables are older than this code
    ├── RedisUnavailable         Redis does not answer
    ├── MessageError             a task message that cannot be stored or sent
    ├── InvalidCursor            a cursor that is not "<attempt>-<n>"
    ├── UnknownJob               no such job, or not yours
    ├── JobConflict              the job's status does not allow what was asked
    ├── IdempotencyConflict      the key was used before for something else
    ├── UsageConflict            … for another usage
    ├── WebhookError             a webhook that cannot be sent
    └── JobUnsuccessful          what `wait()` raises when a job did not complete
        ├── JobFailed
        └── JobWasCancelled

    BaseException
    └── JobInterrupted           ends a running task; not caught by `except Exception`
        ├── JobCancelled
        └── JobLost

The messages say what happened and what to do next; what a program needs to decide is in attributes.
"""

from __future__ import annotations

from typing import Any

from kombu.exceptions import EncodeError


class LivejobsError(Exception):
    """Root of all errors of livejobs."""


class SettingsError(LivejobsError):
    """A setting is missing or cannot be used."""


class DatabaseUnavailable(LivejobsError):
    """The database does not answer."""


class MigrationsNeeded(LivejobsError):
    """The tables in the database do not have the shape this version needs.

    Attributes:
        found: Revision in the database, None when there are no tables yet.
        needed: Revision this version needs.
        database: Its URL without the password; "" where that is not known.
    """

    def __init__(self, found: str | None, needed: str, database: str = "") -> None:
        self.found = found
        self.needed = needed
        self.database = database
        state = "has no livejobs tables" if found is None else f"is at revision {found}"
        super().__init__(
            f"The database {f'{database} ' if database else ''}{state}, "
            f"this version needs {needed}: run `livejobs migrate`."
        )


class RedisUnavailable(LivejobsError):
    """Redis does not answer."""


class MessageError(LivejobsError, EncodeError):
    """A task message that cannot be stored or sent; to Celery an error of its serializer."""


class InvalidCursor(LivejobsError, ValueError):
    """A text that is not a cursor.

    Attributes:
        text: What was given.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(
            f"{text[:80]!r} is not a cursor: send back one that a message carried, like 1-57."
        )


class UnknownJob(LivejobsError):
    """No job has this id, or it belongs to somebody else.

    Attributes:
        job_id: The id that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"There is no job {job_id}, or it is not yours.")


class JobConflict(LivejobsError):
    """The job's status does not allow what was asked.

    Attributes:
        job_id: The job.
        status: Its status at that moment.
    """

    def __init__(self, job_id: str, status: str, action: str) -> None:
        self.job_id = job_id
        self.status = status
        super().__init__(f"Job {job_id} is {status}; it cannot be {action} now.")


class IdempotencyConflict(LivejobsError):
    """An idempotency key came again with something else.

    Attributes:
        job_id: The job that the key created first.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"This idempotency key created job {job_id} with another task or other arguments: "
            "use a new key for new work."
        )


class UsageConflict(LivejobsError):
    """A usage's key came again with another usage.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"The key {key!r} has recorded another usage before: use a new key for new usage."
        )


class WebhookError(LivejobsError):
    """A webhook that cannot be sent, or was not taken.

    Attributes:
        code: `webhook_invalid`: no webhook can go to that URL; `webhook_not_set_up`: there is no
            secret to sign with; `webhook_forbidden`: the address may not be connected to;
            `webhook_unreachable`: nobody answered; `http_500` and the like: the receiver did.
    """

    def __init__(self, code: str, message: str) -> None:
        # Both are the exception's args, so that it survives pickling between processes.
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class JobUnsuccessful(LivejobsError):
    """A job that was waited for did not complete.

    Attributes:
        job_id: The job.
        error: Its error as in the view, or None.
    """

    def __init__(self, job_id: str, error: Any = None) -> None:
        self.job_id = job_id
        self.error = error
        super().__init__(f"Job {job_id} {self._ended(error)}.")

    @staticmethod
    def _ended(error: Any) -> str:
        message = getattr(error, "message", None)
        return f"did not complete: {message}" if message else "did not complete"


class JobFailed(JobUnsuccessful):
    """The job failed."""


class JobWasCancelled(JobUnsuccessful):
    """The job was cancelled."""


class JobInterrupted(BaseException):
    """Ends a running task from inside its reports.

    It is no `Exception`, so that `except Exception: raise self.retry()` does not swallow it.

    Attributes:
        job_id: The job.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(job_id)


class JobCancelled(JobInterrupted):
    """Somebody asked for the job to be cancelled."""


class JobLost(JobInterrupted):
    """This execution is no longer the job's: its lease ran out, and a keeper took it back."""
