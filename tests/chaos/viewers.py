"""Viewers that stay to the end: our clients, in Python and in Node, each held to one transport."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from livejobs import watch
from livejobs.entries import Cursor
from livejobs.views import EndMessage, JobMessage, LogMessage, OutputMessage, SubscribedMessage
from livejobs.watching import ConnectionEvent

from .plan import Watching

PROGRAM: Final = Path(__file__).with_name("viewers.mjs")
MAX_LINE: Final = 64 * 1024 * 1024
_TRANSPORT: Final[dict[str, Literal["websocket", "sse", "poll"]]] = {
    "websocket": "websocket",
    "sse": "sse",
    "polling": "poll",
}


@dataclass
class Seen:
    """What a viewer was told of a job.

    Attributes:
        job_id: The job.
        watching: Who it is.
        view: The newest view, as JSON.
        entries: Cursor and text of each entry of the newest attempt, in the order they came.
        recovered: False: it was told that entries are past retention.
        ended: It was told that this is all.
        ended_at: When, by the monotonic clock.
        connections: How often it came to be connected.
        error: What it failed with.
    """

    job_id: str
    watching: Watching
    view: dict[str, Any] | None = None
    entries: list[tuple[Cursor, str]] = field(default_factory=list)
    recovered: bool = True
    ended: bool = False
    ended_at: float | None = None
    connections: int = 0
    error: str | None = None

    def take(self, cursor: str, text: str) -> None:
        """An entry came."""
        at = Cursor.parse(cursor)
        if self.entries and at.attempt > self.entries[-1][0].attempt:
            self.entries = []
        self.entries.append((at, text))

    @property
    def name(self) -> str:
        """Who it is, in words."""
        by = self.watching
        return f"{by.client} viewer by {by.transport} at {by.server}"


class Viewers:
    """All viewers of a run.

    Args:
        url: Where viewers find a server, by its name.
        token: What they show.

    Attributes:
        seen: What each was told, in the order they came.
    """

    def __init__(self, url: Callable[[str], str], token: str) -> None:
        self.seen: list[Seen] = []
        self._url = url
        self._token = token
        self._tasks: set[asyncio.Task[None]] = set()
        self._node: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._by_number: dict[int, Seen] = {}

    async def open(self) -> None:
        """Start the process of the JavaScript viewers."""
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("the JavaScript viewers need Node 20 or newer")
        self._node = await asyncio.create_subprocess_exec(
            *(node, str(PROGRAM), self._token),
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_LINE,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End all of them."""
        for task in (*self._tasks, *([self._reading] if self._reading else [])):
            task.cancel()
        if self._node is not None:
            with contextlib.suppress(ProcessLookupError):
                self._node.kill()
            await self._node.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> list[Seen]:
        """Those that have not been told the end yet."""
        return [seen for seen in self.seen if not seen.ended and seen.error is None]

    def watch(self, job_id: str, watching: Watching) -> Seen:
        """Let one more watch a job."""
        seen = Seen(job_id, watching)
        number = len(self.seen)
        self.seen.append(seen)
        if watching.client == "javascript":
            self._ask(number, seen)
        else:
            task = asyncio.create_task(self._follow(seen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return seen

    async def _follow(self, seen: Seen) -> None:
        def connected(event: ConnectionEvent) -> None:
            seen.connections += event.connected

        try:
            async for message in watch(
                seen.job_id,
                url=self._url(seen.watching.server),
                token=self._token,
                transport=_TRANSPORT[seen.watching.transport],
                on_connection=connected,
            ):
                match message:
                    case JobMessage():
                        seen.view = message.job.model_dump(mode="json")
                    case LogMessage():
                        seen.take(message.id, "".join(line.text for line in message.lines))
                    case OutputMessage():
                        seen.take(message.id, message.text)
                    case SubscribedMessage():
                        seen.recovered = seen.recovered and message.recovered
                    case EndMessage():
                        seen.ended, seen.ended_at = True, time.monotonic()
        except Exception as error:
            seen.error = f"{type(error).__name__}: {error}"

    # -- in Node ---------------------------------------------------------------------------------

    def _ask(self, number: int, seen: Seen) -> None:
        assert self._node is not None
        assert self._node.stdin is not None
        self._by_number[number] = seen
        order = {
            "number": number,
            "transport": seen.watching.transport,
            "base": self._url(seen.watching.server),
            "id": seen.job_id,
        }
        self._node.stdin.write(json.dumps(order).encode() + b"\n")

    async def _read(self) -> None:
        assert self._node is not None
        assert self._node.stdout is not None
        async for line in self._node.stdout:
            _understand(json.loads(line), self._by_number)
        for seen in self._by_number.values():
            if not seen.ended:
                seen.error = seen.error or "the process of the JavaScript viewers has ended"


def _understand(told: dict[str, Any], viewers: dict[int, Seen]) -> None:
    seen = viewers[told["number"]]
    if "error" in told:
        seen.error = told["error"]
        return
    for entry in told["entries"]:
        text = entry.get("text") or "".join(line["text"] for line in entry.get("lines", ()))
        seen.take(entry["id"], text)
    seen.view, seen.connections = told["final"], told["connections"]
    seen.ended, seen.ended_at = told["ended"], time.monotonic()


@contextlib.asynccontextmanager
async def viewers(url: Callable[[str], str], token: str) -> AsyncIterator[Viewers]:
    """Viewers, until the end of the block."""
    made = Viewers(url, token)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
