"""A real Chromium, driven from tests: `tests/browser/remote.mjs` calls Playwright for us."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(__file__).resolve().parents[1] / "browser" / "remote.mjs"
START_SECONDS: Final = 60.0
CALL_SECONDS: Final = 40.0
"""Longer than Playwright's own 30 s, whose message says more."""
POLL_SECONDS: Final = 0.05


class BrowserError(Exception):
    """The browser could not do what it was asked to."""


class Browser:
    """A Chromium that lives as long as the tests.

    Attributes:
        version: Its version.
    """

    def __init__(self) -> None:
        node = shutil.which("node")
        assert node, "these tests need Node 20: install it, then run `make test`"
        self.version = ""
        self._numbers = itertools.count()
        self._calls: dict[int, Future[Any]] = {}
        self._said: dict[int, list[str]] = {}
        self._process = subprocess.Popen(
            [node, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._writing = threading.Lock()
        started = self._expect(next(self._numbers))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.version = started.result(START_SECONDS)

    def send(self, on: int, call: str, *args: Any) -> Future[Any]:
        """Call a method of a handle's object; the outcome is JSON or a handle."""
        with self._writing:
            number = next(self._numbers)
            outcome = self._expect(number)
            assert self._process.stdin is not None
            line = {"id": number, "on": on, "call": call, "args": args}
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        return outcome

    def said(self, handle: int) -> list[str]:
        """What a page wrote to its console, with its uncaught errors; it grows."""
        return self._said.setdefault(handle, [])

    async def context(self, **options: Any) -> Context:
        """A window of its own: nothing is shared with others, such as cookies.

        Args:
            options: Playwright's, such as `colorScheme="dark"`.
        """
        value = await _outcome(self.send(0, "newContext", options))
        return Context(self, value["handle"])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _expect(self, number: int) -> Future[Any]:
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()  # So that whoever gives up waiting cannot cancel it.
        self._calls[number] = outcome
        return outcome

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "said" in told:
                self.said(told["on"]).append(told["said"])
            elif "error" in told:
                self._calls.pop(told["id"]).set_exception(BrowserError(told["error"]))
            else:
                self._calls.pop(told["id"]).set_result(told["value"])
        for outcome in list(self._calls.values()):
            outcome.set_exception(BrowserError("the browser is gone"))


class Context:
    """A window with tabs of its own.

    Attributes:
        pages: Its tabs, also those that were closed.
    """

    def __init__(self, browser: Browser, handle: int) -> None:
        self.pages: list[Page] = []
        self._browser = browser
        self._handle = handle

    async def page(self) -> Page:
        """A new tab."""
        made = await self.call("newPage")
        self.pages.append(Page(self._browser, made["handle"]))
        return self.pages[-1]

    async def call(self, name: str, *args: Any) -> Any:
        """Call a method of Playwright's BrowserContext, such as `setOffline`."""
        return await _outcome(self._browser.send(self._handle, name, *args))


class Page:
    """A tab."""

    def __init__(self, browser: Browser, handle: int) -> None:
        self._browser = browser
        self._handle = handle

    @property
    def console(self) -> list[str]:
        """What it wrote to its console, with its uncaught errors."""
        return list(self._browser.said(self._handle))

    async def call(self, name: str, *args: Any) -> Any:
        """Call a method of Playwright's Page or of a part of it, such as `clock.fastForward`."""
        return await _outcome(self._browser.send(self._handle, name, *args))

    async def goto(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        await self.call("goto", url)

    async def evaluate(self, script: str, *arguments: Any) -> Any:
        """The value of an expression; with arguments it is a function, which is called."""
        if arguments:
            script = f"({script})(...{json.dumps(arguments)})"
        return await self.call("evaluate", script)

    async def until(
        self, script: str, *arguments: Any, description: str, seconds: float = 15.0
    ) -> Any:
        """The first true value of what `evaluate` gives.

        The page's clock has no part in it: a test may have stopped that.
        """
        deadline = time.monotonic() + seconds
        while True:
            value = await self.evaluate(script, *arguments)
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s in the page: {description}")
            await asyncio.sleep(POLL_SECONDS)

    def last(self, name: str, *args: Any) -> Any:
        """`call`, but it waits for the outcome: for a test that has failed already."""
        return self._browser.send(self._handle, name, *args).result(10)


async def _outcome(future: Future[Any]) -> Any:
    async with asyncio.timeout(CALL_SECONDS):
        return await asyncio.wrap_future(future)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, until the end of the block."""
    browser = Browser()
    try:
        yield browser
    finally:
        browser.close()
