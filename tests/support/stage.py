"""Everything that runs in production, as real processes, for tests that look at it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from livejobs.settings import Settings
from livejobs_server import sign_token

from .clients import new_job
from .server import HttpServer
from .servers import ValkeyProcess
from .waiting import STEP_SECONDS
from .worker import celery_worker

OWNER: Final = "ada"
SECRET: Final = "not-a-secret-but-long-enough-for-the-tests"
TASKS: Final = "tests.support.jobs_app"


class DictatedJob:
    """A job in a real worker, which says what a test writes to its file.

    Attributes:
        id: Its id.
        said: All that it was told to say: each is an entry, log and output in turn.
    """

    def __init__(self, job_id: str, script: Path) -> None:
        self.id = job_id
        self.said: list[str] = []
        self._script = script

    @property
    def lines(self) -> list[str]:
        """What its log is to hold."""
        return self.said[::2]

    @property
    def output(self) -> str:
        """What its output is to be."""
        return "".join(self.said[1::2])

    def say(self, count: int = 1) -> None:
        """Let it say so many things more."""
        more = [f"entry {len(self.said) + n};" for n in range(1, count + 1)]
        self.said += more
        self._write(*more)

    def end(self) -> None:
        """Let it complete."""
        self._write("end")

    def _write(self, *lines: str) -> None:
        with self._script.open("a", encoding="utf-8") as script:
            script.write("".join(f"{line}\n" for line in lines))


class Stage:
    """A server, a worker, a Valkey and a database.

    Attributes:
        settings: Theirs.
        valkey: To be killed and started again.
        server: To be killed and started again.
    """

    def __init__(self, settings: Settings, valkey: ValkeyProcess, folder: Path) -> None:
        self.settings = settings
        self.valkey = valkey
        self.server = HttpServer(
            settings, folder / "server.log", env={"LIVEJOBS_TASKS": f"{TASKS}.*"}
        )
        self._dictated: list[DictatedJob] = []
        self._folder = folder
        self._worker = contextlib.ExitStack()
        self._workers = itertools.count(1)

    def start_worker(self) -> None:
        """Start a worker in place of the one that runs, or of the one that has ended."""
        self._worker.close()
        log = self._folder / f"worker-{next(self._workers)}.log"
        self._worker.enter_context(celery_worker(self.settings, log))

    def stop(self) -> None:
        """End server and worker."""
        self.server.stop()
        self._worker.close()

    def token(self, **limits: Any) -> str:
        """A token of Ada's."""
        return sign_token(owner=OWNER, settings=self.settings, **limits)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Ada's client of the server itself."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        async with httpx.AsyncClient(
            base_url=self.server.url, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client

    async def start(self, task: str, *args: Any) -> str:
        """A new job of Ada's, made over REST; its id."""
        async with self.client() as client:
            return await new_job(client, task=f"{TASKS}.{task}", args=list(args))

    async def dictate(self, total: int = 100) -> DictatedJob:
        """A new job of Ada's that says what the test wants it to, and ends when it is told."""
        script = self.settings.data_dir / f"{uuid4().hex}.txt"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.touch()
        job = DictatedJob(await self.start("dictated", str(script), total), script)
        self._dictated.append(job)
        return job

    def end_jobs(self) -> None:
        """Let those complete that a test has left running, so that the next one has a worker."""
        while self._dictated:
            self._dictated.pop().end()

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job as REST shows it."""
        async with self.client() as client:
            response = await client.get(f"/v1/jobs/{job_id}")
        shown: dict[str, Any] = response.raise_for_status().json()
        return shown

    async def is_over(self, job_id: str) -> None:
        """Wait until REST says so."""
        deadline = time.monotonic() + 20
        while (await self.job(job_id))["completed_at"] is None:
            assert time.monotonic() < deadline, f"{job_id} is not over within 20 s"
            await asyncio.sleep(STEP_SECONDS)


@contextlib.contextmanager
def stage(database_url: str, folder: Path) -> Iterator[Stage]:
    """All processes, until the end of the block.

    Args:
        database_url: A database with all tables.
        folder: For data and logs.
    """
    valkey = ValkeyProcess()
    with contextlib.ExitStack() as running:
        running.callback(valkey.close)
        valkey.start()
        settings = Settings(
            database_url=database_url,
            redis_url=valkey.url,
            data_dir=folder / "data",
            secrets=SECRET,
        )
        made = Stage(settings, valkey, folder)
        running.callback(made.stop)
        made.server.start()
        made.start_worker()
        yield made
