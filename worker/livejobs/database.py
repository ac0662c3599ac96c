"""Engines, and the running of transition programs on them, sync in workers and async in servers.

Both runners execute the same statement objects; there is no second copy of any logic.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    column,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.base import Executable

from .errors import DatabaseUnavailable, MigrationsNeeded
from .forks import fork_gate
from .models import SCHEMA_TOKEN
from .outages import (
    READ_ONLY_STATE,
    has_outage_state,
    is_outage,
    lacks_tables,
    outage_of,
    state_of,
)
from .settings import Settings, get_settings, settings_generation
from .statements import Batch, Rows

T = TypeVar("T")
Steps = Generator[Executable | Batch, Rows, T]

SQLITE_PATIENCE_SECONDS = 10.0
"""How long a writer waits for another one on SQLite."""
TURN_SECONDS = 30.0
"""… and for its turn among those of its own process: as long as for a connection of a pool."""
CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 10
"""How long a server's request waits for a connection."""
UNHEARD_SECONDS = 10
"""A connection whose other end has acknowledged nothing for so long is broken."""
VERSION_TABLE = "livejobs_alembic_version"


class Database:
    """The database as workers and the command line use it.

    Args:
        settings: Where it is.
        patience: Seconds that a writer waits for another one on SQLite.
    """

    def __init__(self, settings: Settings, patience: float = SQLITE_PATIENCE_SECONDS) -> None:
        self.settings = settings
        url = settings.sync_database_url
        if url.startswith("sqlite"):
            _make_folder(url)
            engine = create_engine(url, connect_args={"timeout": patience})
            _configure_sqlite(engine)
            if ":memory:" not in url:
                fork_gate.add(self)
        else:
            engine = create_engine(
                url,
                pool_pre_ping=True,
                connect_args=_patience(url),
            )
            _leave_standby(engine)
        self.engine = engine.execution_options(schema_translate_map=schemas(settings))

    def run(self, program: Steps[T]) -> T:
        """Run a program in one transaction and commit it.

        Raises:
            DatabaseUnavailable: The database is away; whether the commit took place is unknown
                where the connection broke in it.
        """
        with self.begin() as connection:
            return execute(connection, program)

    def read(self, program: Steps[T]) -> T:
        """Run a program that only reads; it waits for no writer.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        with self._kept_from_forks(), _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(livejobs_read=True)
            return execute(connection, program)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection in a transaction."""
        with self._kept_from_forks(), _translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _kept_from_forks(self) -> Iterator[None]:
        if self.engine.dialect.name != "sqlite":
            yield  # connections of a server stay the parent's, whatever their state
            return
        thread = fork_gate.enter()
        try:
            yield
        finally:
            fork_gate.leave(thread)

    def dispose(self) -> None:
        """Close all connections; those that are in use now, as soon as they are not."""
        pool = self.engine.pool
        self.engine.dispose()
        # From here on it is nobody's, and would leave what comes back to the garbage collector.
        event.listen(pool, "checkin", _close_returned)

    def close(self) -> None:
        """Close all connections for good: who still uses it keeps none open afterwards."""
        self.dispose()
        event.listen(self.engine.pool, "checkin", _close_returned)


def _close_returned(_: object, record: ConnectionPoolEntry) -> None:
    record.invalidate()


class AsyncDatabase:
    """The database as the server uses it.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        url = settings.async_database_url
        engine: AsyncEngine
        self._writing: asyncio.Lock | None = None
        if url.startswith("sqlite"):
            self._writing = asyncio.Lock()
            _make_folder(url)
            engine = create_async_engine(url, connect_args={"timeout": SQLITE_PATIENCE_SECONDS})
            _configure_sqlite(engine.sync_engine)
        else:
            engine = create_async_engine(
                url,
                pool_pre_ping=True,
                pool_size=10,
                max_overflow=10,
                # Who waits longer is better told to come back: its request may have no reader.
                pool_timeout=POOL_TIMEOUT_SECONDS,
                connect_args={"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": 30},
            )
            _leave_standby(engine.sync_engine)
        self.engine = engine.execution_options(schema_translate_map=schemas(settings))

    @property
    def dialect(self) -> str:
        """Name of the dialect: sqlite or postgresql."""
        return self.engine.dialect.name

    async def run(self, program: Steps[T]) -> T:
        """Run a program in one transaction and commit it; see `Database.run`."""
        async with self.begin() as connection:
            return await execute_async(connection, program)

    async def read(self, program: Steps[T]) -> T:
        """Run a program that only reads; see `Database.read`."""
        with _translated():
            async with self.engine.connect() as connection:
                connection = await connection.execution_options(livejobs_read=True)
                return await execute_async(connection, program)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction."""
        with _translated():
            async with self._turn(), self.engine.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """On SQLite the writers of a process go one by one, in the order they came.

        SQLite itself keeps no queue: who waits asks again after ever longer pauses, so among many
        writers one may never get its turn, and those who wait would hold the pool's connections,
        which readers need.
        """
        if self._writing is None:
            yield
            return
        async with asyncio.timeout(TURN_SECONDS):
            await self._writing.acquire()
        try:
            yield
        finally:
            self._writing.release()

    async def dispose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def execute(
    connection: Connection, program: Steps[T], options: Mapping[str, Any] | None = None
) -> T:
    """Run a program on a connection; the caller commits.

    Args:
        options: Execution options, for a connection that is not of one of the engines here.
    """
    rows: Rows = ()
    try:
        step = next(program)
        while True:
            statement, values = step if isinstance(step, tuple) else (step, None)
            result = connection.execute(statement, values, execution_options=options)
            rows = result.all() if result.returns_rows else ()
            step = program.send(rows)
    except StopIteration as end:
        value: T = end.value
        return value


async def execute_async(
    connection: AsyncConnection, program: Steps[T], options: Mapping[str, Any] | None = None
) -> T:
    """Run a program on an async connection; see `execute`."""
    rows: Rows = ()
    try:
        step = next(program)
        while True:
            statement, values = step if isinstance(step, tuple) else (step, None)
            result = await connection.execute(statement, values, execution_options=options)
            rows = result.all() if result.returns_rows else ()
            step = program.send(rows)
    except StopIteration as end:
        value: T = end.value
        return value


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if lacks_tables(error):
            raise MigrationsNeeded(None, known_revisions()[0]) from error
        if is_outage(error):
            raise outage_of(error) from error
        raise
    except Exception as error:
        if isinstance(error, PoolTimeout | OSError) or has_outage_state(error):
            raise outage_of(error) from error
        raise


def _patience(url: str) -> dict[str, int]:
    """How long psycopg waits: without this a network that swallows everything holds it for ages."""
    usual = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "tcp_user_timeout": UNHEARD_SECONDS * 1000,
    }
    given = make_url(url).query
    return {name: value for name, value in usual.items() if name not in given}


def schemas(settings: Settings) -> dict[str | None, str | None]:
    """The `schema_translate_map` that puts the tables where the settings say."""
    sqlite = settings.sync_database_url.startswith("sqlite")
    return {SCHEMA_TOKEN: None if sqlite else settings.database_schema}


def _make_folder(url: str) -> None:
    path = url.partition(":///")[2].partition("?")[0]
    if path and path != ":memory:" and not path.startswith("file:"):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailable(
                f"The folder of the database {path} cannot be made ({error}): set DATABASE_URL."
            ) from error


def _leave_standby(engine: Engine) -> None:
    """Drop the connections to a server that has become a standby; new ones find its successor."""

    @event.listens_for(engine, "handle_error")
    def handle(context: ExceptionContext) -> None:
        if state_of(context.original_exception) == READ_ONLY_STATE:
            context.is_disconnect = True


def _configure_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and every write transaction begins IMMEDIATE.

    A transaction that began by reading and then writes cannot wait for another writer, it fails
    at once; so writers take the lock first. The driver's own BEGIN is switched off for that.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("livejobs_read")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


# -- one database for a process ------------------------------------------------------------------


class _Shared:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.databases: dict[float, Database] = {}
        self.generation = -1
        self.left_to_parent: list[object] = []

    def after_fork(self) -> None:
        # The parent's connections stay the parent's: closing or collecting them here could end
        # its sessions, so they are kept, unused.
        self.lock = threading.Lock()
        self.left_to_parent.append(self.databases)
        self.databases = {}


_shared = _Shared()
os.register_at_fork(after_in_child=_shared.after_fork)


def get_database(patience: float = SQLITE_PATIENCE_SECONDS) -> Database:
    """The database of this process, as the settings name it; safe across forks.

    Args:
        patience: Seconds that a writer waits for another one on SQLite.
    """
    with _shared.lock:
        if _shared.generation != settings_generation():
            _shared.generation = settings_generation()
            for outdated in _shared.databases.values():
                outdated.close()
            _shared.databases = {}
        settings = get_settings()
        if not settings.sync_database_url.startswith("sqlite"):
            patience = SQLITE_PATIENCE_SECONDS  # one pool will do
        database = _shared.databases.get(patience)
        if database is None:
            database = _shared.databases[patience] = Database(settings, patience)
        return database


def SyncSession() -> Session:
    """A new SQLAlchemy session on livejobs' database, for tasks: ``with SyncSession() as session``.

    On SQLite every transaction of it begins IMMEDIATE; commit soon.
    """
    return sessionmaker(get_database().engine)()


# -- migrations ------------------------------------------------------------------------------------


def alembic_config(settings: Settings) -> Any:
    """Alembic's `Config` of the migrations; it needs a ``connection`` among its attributes."""
    # Alembic takes a fifth of a second to load, and processes that only check need none of it.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("livejobs") / "migrations"))
    config.attributes["schema"] = schemas(settings)[SCHEMA_TOKEN]
    return config


@functools.cache
def known_revisions() -> tuple[str, frozenset[str]]:
    """The revision that this version needs, and all that it knows: the numbers of the files."""
    folder = resources.files("livejobs") / "migrations" / "versions"
    known = {file.name.partition("_")[0] for file in folder.iterdir() if file.name[:4].isdigit()}
    return max(known), frozenset(known)


def migrate(settings: Settings | None = None) -> str:
    """Bring the tables to the shape this version needs; safe to run again.

    Returns:
        The revision the tables have now.

    Raises:
        DatabaseUnavailable: The database is away.
    """
    from alembic import command

    settings = settings or get_settings()
    database = Database(settings)
    config = alembic_config(settings)
    try:
        with database.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.close()
    return known_revisions()[0]


def found_revision(connection: Connection, settings: Settings) -> str | None:
    """The revision of the tables in the database, None where there are none."""
    schema = schemas(settings)[SCHEMA_TOKEN]
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    version = table(VERSION_TABLE, column("version_num"), schema=schema)
    found: str | None = connection.execute(select(version.c.version_num)).scalar()
    return found


def check_migrations(connection: Connection, settings: Settings) -> None:
    """Raise `MigrationsNeeded` where the tables lack what this version needs."""
    found, (needed, known) = found_revision(connection, settings), known_revisions()
    # Tables of a newer version are fine: migrations expand before they contract.
    if found is None or (found in known and found != needed):
        raise MigrationsNeeded(found, needed, connection.engine.url.render_as_string())
