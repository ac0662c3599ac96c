"""What `livejobs up` shows, and how it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from livejobs.mails import maildir

from ..system import BUILT_IN_APP, NAMES, Plan, System, running
from .console import LinePrinter, say
from .interrupts import Interrupts, until_interrupted


def run_up(plan: Plan) -> int:
    """Run everything until a signal or a failure; returns the exit code."""
    printer = LinePrinter(NAMES)

    async def work(interrupts: Interrupts) -> None:
        def tell(text: str) -> None:
            printer("livejobs", text)

        async with running(plan, printer, tell, interrupts.guard) as system:
            say(greeting(system, plan))
            raise await system.supervisor.failure()

    return asyncio.run(until_interrupted(work))


def greeting(system: System, plan: Plan) -> str:
    """What to do now, for somebody who never saw this before."""
    url, key = system.url, system.api_key
    header = f'-H "X-API-Key: {key}"'
    own = [
        "              (signs you in, once and within an hour; later with the API key)",
        f"    API docs  {url}/docs",
        f"    API key   {key}",
    ]
    lines = [
        "",
        "  livejobs is running.",
        "",
        f"    page      {system.page}",
        *([] if plan.web else own),
        f"    data      {system.data_dir.path}",
        *_mail(system, plan),
        "",
        *([] if plan.web else [*_first_steps(system, header, plan), ""]),
        "  Ctrl-C stops everything.",
        "",
    ]
    return "\n".join(lines)


def _mail(system: System, plan: Plan) -> list[str]:
    """Where mails go that are not sent."""
    if plan.app != BUILT_IN_APP or not plan.worker or system.settings.smtp_url is not None:
        return []
    return [f"    mail      {maildir(system.settings)} (SMTP_URL is not set: nothing is sent)"]


def command(program: str = sys.argv[0]) -> str:
    """How to type `livejobs` here: `make up` runs it from a venv that is not on the path.

    Args:
        program: This one.
    """
    own = Path(program).absolute()
    found = shutil.which("livejobs")
    if own.name != "livejobs" or (found and own.samefile(found)):
        return "livejobs"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def _first_steps(system: System, header: str, plan: Plan) -> list[str]:
    url = system.url
    if plan.app != BUILT_IN_APP or not plan.worker:
        return [
            "  Start one of your tasks, and see it on the page, or here:",
            f"    {command()} list",
            "  The page and `livejobs submit` start those that LIVEJOBS_TASKS names; now it is",
            f"    {','.join(system.settings.tasks)}",
        ]
    body = '{"task": "demo.count"}'
    return [
        "  Open the page and start demo.count there, or here; watch it by the id that comes back:",
        f"    curl {header} -H 'Content-Type: application/json' -d '{body}' {url}/v1/jobs",
        f"    {command()} watch <job_id>",
        "  Or ingest a document of yours:",
        f"    curl {header} -F files=@document.pdf {url}/v1/rag/ingest",
    ]
