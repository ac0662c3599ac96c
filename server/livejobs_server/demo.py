"""`livejobs demo`: real documents, watched over all transports at once, compared with the truth.

It starts the same system as `livejobs up`, on free ports and in a temporary folder, uploads the
demo documents, starts one job that takes its time, has the local model answer a batch of prompts,
and follows every job over WebSocket, server-sent events and polling at the same time. It succeeds
when for each job the three transports, REST and the row in the database agree, and when the search
finds a word that stands nowhere but inside the PDF.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from livejobs import reads
from livejobs.database import Database
from livejobs.errors import LivejobsError
from livejobs.models import view_of
from livejobs.settings import Settings
from livejobs.views import JobView, Status
from livejobs.watching import Picture, watch

from . import demo_batch
from .cli.bars import Board, make_board
from .cli.client import refusal
from .cli.console import LinePrinter
from .cli.interrupts import Interrupts, until_interrupted
from .demo_report import TRANSPORTS, Seen, TransportName, print_hits, print_table
from .supervisor import Write
from .system import NAMES, Plan, System, running

RARE_WORD = "marzipan"
"""It stands on the last page of the PDF and in no other document."""
RARE_WORD_IN = "field-guide.pdf"

_DOCUMENTS = "livejobs_worker"
"""Its folder `demo` holds them; found by name, for the server imports nothing of the worker."""

_SLOW_JOB = {"task": "demo.count", "kwargs": {"steps": 40, "seconds": 4.0}}
"""The documents are done in a blink; this one can be watched."""
_REQUEST_SECONDS = 30.0


class DemoFailed(LivejobsError):
    """Something was not as it must be."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """How to run the demo.

    Attributes:
        port: The server's port, 0 for any that is free.
        timeout: Seconds that all of it may take.
        keep: Keep the data folder.
        kill: Child to kill in the middle, for tests of what happens then.
        verbose: Show the log lines of all parts.
    """

    port: int = 0
    timeout: float = 110.0
    keep: bool = False
    kill: str | None = None
    verbose: bool = False


def run_demo(plan: DemoPlan) -> int:
    """Run the demo; returns the exit code, 0 only if all agree."""
    console = Console(highlight=False)
    with _data_folder(console, plan.keep) as folder:

        async def work(interrupts: Interrupts) -> None:
            await _Demo(plan, folder, console, interrupts).run()

        return asyncio.run(until_interrupted(work))


@contextmanager
def _data_folder(console: Console, keep: bool) -> Iterator[Path]:
    """A temporary folder, the working directory meanwhile: a `.env` is read from there.

    No setting of the surroundings shall lead the demo to somebody's real data.
    """
    for info in Settings.model_fields.values():
        for name in getattr(info.validation_alias, "choices", ()):
            os.environ.pop(str(name), None)
    folder = Path(tempfile.mkdtemp(prefix="livejobs-demo-"))
    try:
        with chdir(folder):
            yield folder
    finally:
        if keep:
            console.print(f"The data folder is {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    """The demo's steps; what it shows is in `demo_report`."""

    def __init__(
        self, plan: DemoPlan, folder: Path, console: Console, interrupts: Interrupts
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.console = console
        self.interrupts = interrupts
        self.step = "starting"
        self.killed = False

    async def run(self) -> None:
        """Do all of it.

        Raises:
            LivejobsError: What went wrong.
        """
        limit = asyncio.timeout(self.plan.timeout)
        try:
            async with limit:
                await self._start_and_show()
        except TimeoutError:
            if not limit.expired():
                raise
            raise DemoFailed(
                f"The demo was not done within {self.plan.timeout:g} s; it was {self.step}."
            ) from None

    async def _start_and_show(self) -> None:
        plan = Plan(host="127.0.0.1", port=self.plan.port, data_dir=self.folder / "data")
        async with running(plan, self._writer(), self._tell, self.interrupts.guard) as system:
            self.console.print(f"livejobs runs at {system.url}", style="bold", soft_wrap=True)
            await system.supervisor.while_all_run(self._show(system))

    async def _show(self, system: System) -> None:
        headers = {"X-API-Key": system.api_key}
        async with httpx.AsyncClient(
            base_url=system.url, headers=headers, timeout=_REQUEST_SECONDS, trust_env=False
        ) as client:
            self._tell("uploading the documents")
            jobs = [*await self._upload(client), await self._start_slow_job(client)]
            self._tell("watching every job over WebSocket, SSE and polling at once")
            await self._follow(system, jobs)
            await self._ask_the_model(system, client, jobs)
            self._tell("comparing")
            await self._read_the_truth(system, client, jobs)
            agree = print_table(self.console, jobs)
            self._tell("searching")
            await self._search(client)
        if not agree:
            raise DemoFailed("They do not all agree.")
        self.console.print("All agree.", style="bold green")

    async def _upload(self, client: httpx.AsyncClient) -> list[Seen]:
        documents = resources.files(_DOCUMENTS).joinpath("demo")
        files = [
            ("files", (document.name, document.read_bytes()))
            for document in sorted(documents.iterdir(), key=lambda document: document.name)
            if not document.name.startswith("_")
        ]
        accepted = _good(await client.post("/v1/rag/ingest", files=files))
        return [Seen(job["job_id"], job["name"], job["token"]) for job in accepted["jobs"]]

    async def _start_slow_job(self, client: httpx.AsyncClient) -> Seen:
        job = _good(await client.post("/v1/jobs", json=_SLOW_JOB))
        return Seen(job["job_id"], str(_SLOW_JOB["task"]), job["token"])

    async def _ask_the_model(
        self, system: System, client: httpx.AsyncClient, jobs: list[Seen]
    ) -> None:
        """A batch of prompts; its tokens are shown as they come."""
        if system.settings.llm_base_url is None:
            self._tell("no model is installed here: no prompts")
            return
        self._tell(f"asking the local model {len(demo_batch.PROMPTS)} prompts")
        made = _good(await client.post("/v1/llm/batch", json=demo_batch.BATCH))
        job = Seen(made["job_id"], "llm.batch", made["token"])
        jobs.append(job)
        answers = demo_batch.show_answers(
            client, system.url, system.api_key, job.job_id, self.console
        )
        await _all([answers, *(self._keep(system, job, way) for way in TRANSPORTS)])
        view = job.pictures["websocket"].view
        if view is None or view.result is None or view.result["failed"]:
            raise DemoFailed("The model did not answer all prompts.")
        self.console.print(demo_batch.summary(view.result), style="bold")

    async def _keep(self, system: System, job: Seen, transport: TransportName) -> None:
        """Follow a job without showing it."""
        picture = job.pictures[transport] = Picture()
        async for message in watch(
            job.job_id, url=system.url, token=job.token, transport=transport
        ):
            picture.apply(message)

    async def _follow(self, system: System, jobs: list[Seen]) -> None:
        with make_board(self.console) as board:
            watched = [
                self._follow_one(system, board, job, transport)
                for job in jobs
                for transport in TRANSPORTS
            ]
            await _all(watched)

    async def _follow_one(
        self, system: System, board: Board, job: Seen, transport: TransportName
    ) -> None:
        key = f"{job.job_id} {transport}"
        board.add(key, f"{job.name:<18} {transport:<9}")
        picture = job.pictures[transport] = Picture()
        async for message in watch(
            job.job_id, url=system.url, token=job.token, transport=transport
        ):
            picture.apply(message)
            if picture.view is not None:
                board.show(key, picture.view)
                self._kill_when_asked(system, picture.view)

    def _kill_when_asked(self, system: System, view: JobView) -> None:
        """Kill a child once a job is under way, where the plan says so."""
        if self.plan.kill is None or self.killed or view.status is Status.PENDING:
            return
        self.killed = True
        for child in system.supervisor.children:
            if child.name == self.plan.kill:
                child.signal(signal.SIGKILL)

    async def _read_the_truth(
        self, system: System, client: httpx.AsyncClient, jobs: list[Seen]
    ) -> None:
        for job in jobs:
            job.rest = JobView.model_validate(_good(await client.get(f"/v1/jobs/{job.job_id}")))
        await asyncio.to_thread(_read_rows, system.settings, jobs)

    async def _search(self, client: httpx.AsyncClient) -> None:
        answer = _good(await client.get("/v1/rag/search", params={"q": RARE_WORD}))
        hits = answer["items"]
        print_hits(self.console, RARE_WORD, hits)
        if [hit["name"] for hit in hits] != [RARE_WORD_IN]:
            found = ", ".join(hit["name"] for hit in hits) or "nothing"
            raise DemoFailed(
                f"The search for {RARE_WORD!r} should find {RARE_WORD_IN} and found {found}."
            )

    def _tell(self, text: str) -> None:
        self.step = text
        self.console.print(text, style="dim", soft_wrap=True)

    def _writer(self) -> Write:
        return LinePrinter(NAMES) if self.plan.verbose else _drop


def _drop(_name: str, _line: str) -> None:
    """Where log lines go that nobody asked for; the supervisor keeps the last ones."""


async def _all(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run them together; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _read_rows(settings: Settings, jobs: list[Seen]) -> None:
    database = Database(settings)
    try:
        for job in jobs:
            row = database.read(reads.job(job.job_id))
            job.row = None if row is None else view_of(row)
    finally:
        database.close()


def _good(response: httpx.Response) -> Any:
    if not response.is_success:
        raise DemoFailed(str(refusal(response)))
    return response.json()
