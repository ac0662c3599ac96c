"""A page of the tests that shows a job, and whether it is right."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ..support.browser import Context, Page
from ..support.stage import DictatedJob, Stage
from ..support.web_proxy import SSE, WEBSOCKET, WebProxy

BY_REFUSING: Final[dict[str, set[str]]] = {
    "websocket": set(),
    "sse": {WEBSOCKET},
    "polling": {WEBSOCKET, SSE},
}
"""The client's transports, each with what a proxy has to refuse for it to be used."""


STEP_MS: Final = 1_000
MOST_STEPS: Final = 40
PAUSE_SECONDS: Final = 0.1
"""In which requests of the page are answered, between two steps."""


@dataclasses.dataclass(frozen=True)
class Viewing:
    """A page that shows a job.

    Attributes:
        page: It.
        proxy: What is between it and the server.
    """

    page: Page
    proxy: WebProxy

    async def is_live_by(self, transport: str, seconds: float = 20.0) -> None:
        """Wait until the client says so."""
        await self.page.until(
            "transport => state().transport === transport",
            transport,
            description=f"live by {transport}",
            seconds=seconds,
        )

    async def is_back(self, seconds: float = 15.0) -> None:
        """Wait until the client is connected again, or needs no connection any more."""
        await self.page.until(
            "['live', 'idle'].includes(state().status)", description="back", seconds=seconds
        )

    async def is_not_live(self) -> None:
        """Wait until the client has noticed that it is cut off."""
        await self.page.until("state().status !== 'live'", description="cut off")

    async def has_all_of(self, job: DictatedJob, seconds: float = 20.0) -> None:
        """Wait until every entry has come, and fail where one comes twice or out of order."""
        await self.page.until(
            "count => seen.ids.length >= count",
            len(job.said),
            description=f"all {len(job.said)} entries",
            seconds=seconds,
        )
        seen = await self.page.evaluate("seen")
        assert seen["ids"] == [f"1-{n}" for n in range(1, len(job.said) + 1)]
        assert (seen["lines"], seen["output"]) == (job.lines, job.output)

    async def ends_right(self, job: DictatedJob, stage: Stage, seconds: float = 20.0) -> None:
        """Wait until it has shown the end, and hold what it shows against REST."""
        await self.page.until("seen.ended", description="the end", seconds=seconds)
        await self.has_all_of(job)
        assert await self.page.evaluate("view()") == await stage.job(job.id)
        await self.page.until("isDrawn()", description="drawn")
        assert await self.page.evaluate("shown()") == {
            "status": "completed",
            "bar": 1,
            "lines": job.lines,
            "output": job.output,
        }
        assert await self.page.evaluate("seen.error") is None


async def view(window: Context, proxy: WebProxy, job_id: str, **options: Any) -> Viewing:
    """A page that begins to show a job.

    Args:
        options: Of the client.
    """
    page = await window.page()
    await page.goto(f"{proxy.url}/page/index.html")
    await page.evaluate("show", job_id, options)
    return Viewing(page, proxy)


async def of_all(viewings: Sequence[Viewing], act: Callable[[Viewing], Awaitable[None]]) -> None:
    """Do something with all of them at the same time."""
    await asyncio.gather(*(act(viewing) for viewing in viewings))


async def time_passes_until(window: Context, holds: Callable[[], Awaitable[None]]) -> None:
    """Let the pages' own time pass, a second at a time, until nothing is asserted in vain.

    The window's clock must be installed. So a client whose next try is half a minute away does not
    keep a test waiting for as long.
    """
    for _ in range(MOST_STEPS):
        try:
            await holds()
        except AssertionError:
            await window.call("clock.fastForward", STEP_MS)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    await holds()
