"""Which errors say that the database is away, in SQLAlchemy's words and the drivers'."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .errors import DatabaseUnavailable

READ_ONLY_STATE = "25006"
"""SQLSTATE of a write on a server that has become a standby."""
OUTAGE_STATES = frozenset((READ_ONLY_STATE, "57P01", "57P02", "57P03", "53300"))
"""SQLSTATEs of a server that fails over, stops, starts or has no connection left."""
CONNECTION_CLASS = "08"
"""How the SQLSTATEs of connections begin that failed or broke, also while they were made."""


def is_outage(error: BaseException) -> bool:
    """Whether `error` says that the database is away or busy, not that the statement is wrong."""
    if isinstance(error, DatabaseUnavailable | PoolTimeout | ConnectionError | InterfaceError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if has_outage_state(error):
        return True
    return isinstance(error, OperationalError | OSError) and not lacks_tables(error)


def has_outage_state(error: BaseException) -> bool:
    """Whether the SQLSTATE of an error is that of an outage."""
    state = state_of(error) or ""
    return state in OUTAGE_STATES or state.startswith(CONNECTION_CLASS)


def state_of(error: BaseException) -> str | None:
    """The SQLSTATE, in an error of SQLAlchemy or of a driver, which may be met while connecting."""
    state = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    return state if isinstance(state, str) else None


def lacks_tables(error: BaseException) -> bool:
    """Whether a table or column is missing, in the words of SQLite and PostgreSQL."""
    text = str(getattr(error, "orig", None) or "")
    return "no such " in text or ("relation" in text and "does not exist" in text)


def outage_of(error: BaseException) -> DatabaseUnavailable:
    """The error for the caller, in place of an `error` that `is_outage` takes for one."""
    cause = getattr(error, "orig", None) or error
    return DatabaseUnavailable(
        f"The database does not answer ({str(cause).strip() or type(cause).__name__}): "
        "check DATABASE_URL and that the database runs."
    )
