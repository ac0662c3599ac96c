"""Connections to the database are closed when nobody has them any more, and not left behind."""

from __future__ import annotations

from sqlalchemy import text

from livejobs.database import Database


def test_connection_in_use_is_closed_as_it_comes_back_to_a_database_that_was_disposed_of(
    database: Database,
) -> None:
    with database.begin() as connection:
        used = connection.connection.dbapi_connection
        assert used is not None
        database.dispose()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert is_closed(used)
    # It may be used once more, and keeps what it opens then.
    with database.begin() as connection:
        again = connection.connection.dbapi_connection
    assert again is not None
    assert not is_closed(again)
    with database.begin() as connection:
        assert connection.connection.dbapi_connection is again


def test_database_of_earlier_settings_keeps_no_connection_open_for_who_still_uses_it(
    database: Database,
) -> None:
    # So does a thread that got the database a moment before the settings changed.
    database.close()
    for _ in range(2):
        with database.begin() as connection:
            used = connection.connection.dbapi_connection
            assert used is not None
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert is_closed(used)


def is_closed(connection: object) -> bool:
    """Whether a driver's connection is closed."""
    closed = getattr(connection, "closed", None)
    if closed is not None:
        return bool(closed)
    try:
        connection.execute("SELECT 1")  # type: ignore[attr-defined]
    except Exception as error:
        return "closed" in str(error)
    return False
