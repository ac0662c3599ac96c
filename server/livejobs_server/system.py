"""Everything on one machine: what `livejobs up` and `livejobs demo` start, in which order."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from livejobs import settings as current
from livejobs.database import Database, migrate
from livejobs.errors import LivejobsError, RedisUnavailable
from livejobs.settings import Settings
from livejobs.webhook_settings import new_secret

from . import embedded, local_model
from .data_dir import DataDir, Running
from .keys import create_key, find_key, key_id_of
from .sessions import SignIn
from .supervisor import Program, Supervisor, Write
from .tickets import issue_sign_in
from .viewer import SCOPES, Viewer

BUILT_IN_APP = "livejobs_worker.app"
NAMES = ("livejobs", "valkey", "model", "worker", "beat", "server")
"""Who writes log lines: `up` itself and its children."""
KEY_OWNER = "local"

_PROBE_TIMEOUT_SECONDS = 2.0
_WORKER_READY = re.compile(r"\S@\S+ ready\.")
_BEAT_READY = re.compile(r"beat: Starting")
# TERM lets running tasks end; QUIT gives them ten more seconds and hands them back.
_WORKER_STOPS = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 15.0))

_SERVER_STOP_SECONDS = 10.0

Tell = Callable[[str], None]
"""Takes a line about what is going on."""


class PortTaken(LivejobsError):
    """Another program listens where the server should.

    Attributes:
        host: The address.
        port: The port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"Port {port} of {host} is taken by another program: stop it, or choose another port "
            "by --port (0 takes any that is free)."
        )


class AddressUnusable(LivejobsError):
    """The server cannot listen on this address."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(
            f"The server cannot listen on {host} port {port} ({error.strerror or error}): "
            "choose others by --host and --port."
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        host: Address of the server.
        port: Its port, 0 for any that is free.
        data_dir: Folder for all that is kept.
        app: The Celery app of the worker and of beat, as `celery -A` takes it.
        web: The app that is served, as uvicorn takes it; None: livejobs' own server.
        concurrency: Processes of the worker.
        worker: Whether to run a worker.
        beat: Whether to run beat.
        model: Whether to run a small language model, where no endpoint of one is set.
    """

    host: str
    port: int
    data_dir: Path
    app: str = BUILT_IN_APP
    web: str | None = None
    concurrency: int = 2
    worker: bool = True
    beat: bool = True
    model: bool = True


@dataclass(frozen=True, slots=True)
class System:
    """The running system.

    Attributes:
        url: The server.
        page: The page to look at; at livejobs' own server its URL signs in, once.
        api_key: A key with every scope, for trying out.
        settings: Settings as the children have them.
        supervisor: Knows the children.
        data_dir: Its folder.
    """

    url: str
    page: str = field(repr=False)
    api_key: str = field(repr=False)
    settings: Settings = field(repr=False)
    supervisor: Supervisor = field(repr=False)
    data_dir: DataDir


@asynccontextmanager
async def running(
    plan: Plan, write: Write, tell: Tell, supervisors: Callable[[Supervisor], None]
) -> AsyncIterator[System]:
    """Run the system; it is ready when the context is entered and gone when it is left.

    Args:
        plan: What to run.
        write: Gets each line of the children's output.
        tell: Gets a line about each step.
        supervisors: Gets the supervisor before anything starts, to be able to kill at once.

    Raises:
        DataDirUnusable, DataDirInUse: The data folder.
        PortTaken, AddressUnusable: The server's address.
        DatabaseUnavailable, RedisUnavailable: One that was given does not answer.
        ChildFailed: A child ended, or is not ready in time.
    """
    data_dir = DataDir(plan.data_dir)
    async with data_dir.lock(tell) as lock:
        port = claim_port(plan.host, plan.port)
        async with Supervisor(write, keep_open=[lock]) as supervisor:
            supervisors(supervisor)
            try:
                yield await _Start(plan, port, data_dir, supervisor, tell).run()
            finally:
                data_dir.forget_running()


class _Start:
    """The steps from nothing to a system that is ready."""

    def __init__(
        self, plan: Plan, port: int, data_dir: DataDir, supervisor: Supervisor, tell: Tell
    ) -> None:
        self.plan = plan
        self.port = port
        self.data_dir = data_dir
        self.supervisor = supervisor
        self.tell = tell
        self.url = f"http://{_reachable(plan.host)}:{port}"

    async def run(self) -> System:
        redis_url = await self._redis()
        model = self._model()
        settings = self._configure(redis_url, model)
        self.tell("bringing the database up to date")
        await asyncio.to_thread(migrate, settings)
        programs = self._programs(self._environment(settings), model)
        self.tell(f"starting {', '.join(program.name for program in programs)}")
        await self.supervisor.start(*programs)
        key, ticket = await asyncio.to_thread(self._credentials, settings)
        self.data_dir.note_running(
            Running(os.getpid(), self.url, settings.redis_url, settings.database_url)
        )
        page = f"{self.url}/" if self.plan.web else f"{self.url}/?ticket={ticket}"
        return System(self.url, page, key, settings, self.supervisor, self.data_dir)

    async def _redis(self) -> str:
        settings = current.get_settings()
        if "redis_url" in settings.model_fields_set:
            if why := await embedded.why_silent(settings.redis_url):
                raise RedisUnavailable(
                    f"The Redis that REDIS_URL names does not answer ({why}): start it, or unset "
                    "REDIS_URL to use the embedded Valkey."
                )
            return settings.redis_url
        self.tell("starting the embedded Valkey")
        return await self._start_valkey()

    async def _start_valkey(self) -> str:
        password = self.data_dir.secret("valkey-password")
        folder = self.data_dir.path / "valkey"
        port = embedded.free_port()
        await self.supervisor.start(embedded.valkey_program(folder, password, port))
        return embedded.valkey_url(password, port)

    def _model(self) -> tuple[Path, int] | None:
        """The file of the embedded model and a port for it; None: there is to be none."""
        given = current.get_settings()
        if not (self.plan.model and self.plan.worker) or given.llm_base_url is not None:
            return None
        path = local_model.find_model()
        return None if path is None else (path, embedded.free_port())

    def _configure(self, redis_url: str, model: tuple[Path, int] | None) -> Settings:
        """Settings of this process and its children: what is given, else what is embedded."""
        given = current.get_settings()
        overrides: dict[str, Any] = {
            "redis_url": redis_url,
            "data_dir": self.data_dir.path,
            "host": self.plan.host,
            "port": self.port,
            "worker_concurrency": self.plan.concurrency,
        }
        if "database_url" not in given.model_fields_set:
            overrides["database_url"] = self.data_dir.database_url
        if "secrets" not in given.model_fields_set:
            overrides["secrets"] = self.data_dir.secret("secret")
        if not given.webhook_secret:
            overrides["webhook_secret"] = self.data_dir.keep("webhook-secret", new_secret)
        if model is not None:
            overrides |= {
                "llm_base_url": local_model.base_url(model[1]),
                "llm_api_key": self.data_dir.secret("model-key"),
                "llm_model": local_model.MODEL,
            }
        return current.configure(**overrides)

    def _programs(
        self, environment: dict[str, str], model: tuple[Path, int] | None
    ) -> list[Program]:
        programs = []
        if model is not None:
            key = self.data_dir.secret("model-key")
            programs.append(local_model.model_program(model[0], key, model[1], environment))
        if self.plan.worker:
            programs.append(_worker(self.plan, environment))
        if self.plan.beat:
            programs.append(_beat(self.plan, self.data_dir, environment))
        programs.append(_server(self.plan, self.port, self.url, environment))
        return programs

    def _environment(self, settings: Settings) -> dict[str, str]:
        secrets, webhook_secrets = (
            ",".join(secret.get_secret_value() for secret in some)
            for some in (settings.secrets, settings.webhook_secret)
        )
        key = settings.llm_api_key
        return os.environ | {
            "LIVEJOBS_LLM_BASE_URL": settings.llm_base_url or "",
            "LIVEJOBS_LLM_API_KEY": "" if key is None else key.get_secret_value(),
            "LIVEJOBS_LLM_MODEL": settings.llm_model or "",
            "REDIS_URL": settings.redis_url,
            "DATABASE_URL": settings.database_url,
            "CELERY_BROKER_URL": settings.celery_broker_url,
            "CELERY_WORKER_CONCURRENCY": str(settings.worker_concurrency),
            "LIVEJOBS_SECRETS": secrets,
            "LIVEJOBS_WEBHOOK_SECRET": webhook_secrets,
            "LIVEJOBS_DATA_DIR": str(settings.data_dir),
            "LIVEJOBS_HOST": settings.host,
            "LIVEJOBS_PORT": str(settings.port),
            # Lines come when they are written, not when a buffer is full.
            "PYTHONUNBUFFERED": "1",
        }

    def _credentials(self, settings: Settings) -> tuple[str, str]:
        """The kept key, or a new one where the database does not know it, and a ticket for it."""
        database = Database(settings)
        try:
            key = self.data_dir.read("api-key")
            viewer = database.read(find_key(key)) if key else None
            if key is None or viewer is None:
                key = create_key(database, KEY_OWNER, SCOPES).key
                self.data_dir.store("api-key", key)
                viewer = Viewer(KEY_OWNER, SCOPES)
            made = database.run(issue_sign_in(SignIn(viewer, key_id_of(key))))
            return key, made.ticket
        finally:
            database.close()


def claim_port(host: str, port: int) -> int:
    """The port for the server to listen on, after a look whether it can.

    Raises:
        PortTaken: Somebody listens there.
        AddressUnusable: It cannot be listened on for another reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As uvicorn does: connections that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Binding succeeds next to a listener on another address of the same port.
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(host, port) from None
            raise AddressUnusable(host, port, error) from None
        chosen: int = probe.getsockname()[1]
        return chosen


def _reachable(host: str) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    local = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def _celery(app: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, *arguments]


def _worker(plan: Plan, environment: dict[str, str]) -> Program:
    concurrency = f"--concurrency={plan.concurrency}"
    return Program(
        name="worker",
        command=_celery(plan.app, "worker", "--loglevel=info", concurrency),
        environment=environment,
        ready_line=_WORKER_READY,
        stops=_WORKER_STOPS,
    )


def _beat(plan: Plan, data_dir: DataDir, environment: dict[str, str]) -> Program:
    schedule = f"--schedule={data_dir.path / 'beat-schedule'}"
    return Program(
        name="beat",
        command=_celery(plan.app, "beat", "--loglevel=info", schedule),
        environment=environment,
        ready_line=_BEAT_READY,
    )


def _server(plan: Plan, port: int, url: str, environment: dict[str, str]) -> Program:
    command = [sys.executable, "-m", "livejobs_server.cli", "server"]
    web = [] if plan.web is None else [f"--web={plan.web}"]
    return Program(
        name="server",
        command=[*command, f"--host={plan.host}", f"--port={port}", *web],
        environment=environment,
        ready=(lambda: is_ready(url)) if plan.web is None else (lambda: _answers(url)),
        # It may serve its viewers on for a while.
        stops=((signal.SIGTERM, _SERVER_STOP_SECONDS + current.get_settings().drain_linger),),
    )


async def _answers(url: str) -> bool:
    """Whether an app is served at `url`, whatever it says; its lifespan has begun then."""
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_TIMEOUT_SECONDS) as client:
        try:
            await client.get(url)
        except httpx.HTTPError:
            return False
        return True


async def is_ready(url: str) -> bool:
    """Whether the server at `url` says that it can do its work."""
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_TIMEOUT_SECONDS) as client:
        try:
            response = await client.get(f"{url}/readyz")
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK
