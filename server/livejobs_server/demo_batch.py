"""The demo's batch of prompts: the local model answers, and every token is shown as it comes."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, Self

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from livejobs.views import OutputMessage
from livejobs.watching import Picture, watch

PROMPTS: Final = (
    *("Name three colours.", "What do bees make?", "Why is the sky blue?"),
    *("What is a queue?", "Name a river in Africa.", "What is two plus two?"),
    *("Write a line about the sea.", "What is bread made of?", "Say hello in French."),
    *("What does a clock show?", "Name an animal that flies.", "Why do people sleep?"),
)
BATCH: Final[dict[str, Any]] = {
    "prompts": PROMPTS,
    "system": "Answer in one short sentence.",
    "max_tokens": 16,
    "temperature": 0,
    "concurrency": 2,
}
POLL_SECONDS: Final = 0.3


class Screen(Protocol):
    """Shows answers while they are made; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, number: int, text: str, new: str) -> None:
        """Show an answer as it is now, and what is new of it."""


class LiveScreen:
    """A line for each prompt, in which its answer grows."""

    def __init__(self, console: Console) -> None:
        self._answers = [""] * len(PROMPTS)
        self._live = Live(self._table(), console=console, refresh_per_second=12)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, number: int, text: str, new: str) -> None:
        """Show an answer as it is now."""
        self._answers[number] = text
        self._live.update(self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 1))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for prompt, answer in zip(PROMPTS, self._answers, strict=True):
            table.add_row(Text(prompt), Text(" ".join(answer.split())))
        return table


class PlainScreen:
    """A line for all that comes together."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, number: int, text: str, new: str) -> None:
        """Write what is new of an answer."""
        self._console.print(Text(f"{PROMPTS[number]:<28} … {' '.join(new.split())}"))


async def show_answers(
    client: httpx.AsyncClient, url: str, key: str, job_id: str, console: Console
) -> None:
    """Follow each child of a batch as soon as it is there, until all are over."""
    screen: Screen = LiveScreen(console) if console.is_terminal else PlainScreen(console)
    with screen:
        async with asyncio.TaskGroup() as group:
            known: set[str] = set()
            while len(known) < len(PROMPTS):
                response = await client.get(f"/v1/jobs/{job_id}/results", params={"limit": 100})
                response.raise_for_status()
                for child in response.json()["items"]:
                    # The batch itself is what comes of it before it has children.
                    if child["n"] is not None and child["job_id"] not in known:
                        known.add(child["job_id"])
                        following = _follow(url, key, child["job_id"], child["n"], screen)
                        group.create_task(following)
                await asyncio.sleep(POLL_SECONDS)


async def _follow(url: str, key: str, job_id: str, number: int, screen: Screen) -> None:
    picture = Picture()
    async for message in watch(job_id, url=url, api_key=key):
        picture.apply(message)
        if isinstance(message, OutputMessage):
            screen.show(number, picture.outputs.get(None, ""), message.text)


def summary(result: dict[str, Any]) -> str:
    """What came of the batch, in a line."""
    return (
        f"The model answered {result['done'] - result['failed']} of {len(PROMPTS)} prompts: "
        f"{result['tokens']} tokens, {result['tokens_per_second']:g} a second"
    )
