"""Fixtures of the tests in a real browser: it, real processes, and a proxy between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path

import pytest

from ..conftest import MakeDatabase
from ..support.browser import Browser, BrowserError, Context, Page, chromium
from ..support.stage import Stage
from ..support.stage import stage as real_processes
from ..support.web_proxy import WebProxy, web_proxy
from .viewing import BY_REFUSING, Viewing, view

MakeProxy = Callable[..., Awaitable[WebProxy]]
ViewByEach = Callable[..., Awaitable[list[Viewing]]]

PAGE = Path(__file__).with_name("page")
WINDOW = pytest.StashKey[Context]()
FOLDER = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests; each has a window of its own in it."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def processes(
    make_database: MakeDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The real processes, shared by all tests: each leaves them running."""
    with real_processes(make_database("sqlite"), tmp_path_factory.mktemp("stage")) as processes:
        yield processes


@pytest.fixture
def stage(processes: Stage) -> Iterator[Stage]:
    """The real processes, for a test."""
    yield processes
    processes.end_jobs()


@pytest.fixture
async def window(
    browser: Browser, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Context]:
    """A window without a past."""
    window = await browser.context()
    request.node.stash[WINDOW] = window
    request.node.stash[FOLDER] = tmp_path
    yield window
    await window.call("close")


@pytest.fixture
async def make_proxy(stage: Stage) -> AsyncIterator[MakeProxy]:
    """``await make_proxy()``: a proxy before the server.

    `/page/` is the tests' page on it, `/page/token` a fresh token.
    """
    async with contextlib.AsyncExitStack() as proxies:

        async def make(token: Callable[[], str] = stage.token) -> WebProxy:
            files = {"/page/": PAGE}
            made = web_proxy(stage.server.port, files, {"/page/token": token})
            return await proxies.enter_async_context(made)

        yield make


@pytest.fixture
async def proxy(make_proxy: MakeProxy) -> WebProxy:
    """A proxy before the server."""
    return await make_proxy()


@pytest.fixture
async def view_by_each(window: Context, make_proxy: MakeProxy) -> ViewByEach:
    """``await view_by_each(job_id)``: three pages that show a job live.

    One does so by WebSocket, one by an event stream, one by polling; each has a proxy of its own.
    """

    async def view_by(transport: str, job_id: str, **proxied: Callable[[], str]) -> Viewing:
        proxy = await make_proxy(**proxied)
        proxy.refused = BY_REFUSING[transport]
        viewing = await view(window, proxy, job_id)
        await viewing.is_live_by(transport)
        return viewing

    async def make(job_id: str, **proxied: Callable[[], str]) -> list[Viewing]:
        made = (view_by(transport, job_id, **proxied) for transport in BY_REFUSING)
        return list(await asyncio.gather(*made))

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that failed what its pages said and how they look."""
    report = yield
    if report.when == "call" and report.failed and WINDOW in item.stash:
        for number, page in enumerate(item.stash[WINDOW].pages, 1):
            said = "\n".join([*page.console, *_looks(page, item.stash[FOLDER], number)])
            report.sections.append((f"Page {number} in the browser", said))
    return report


def _looks(page: Page, folder: Path, number: int) -> Iterator[str]:
    path = folder / f"page-{number}.png"
    try:
        seen = page.last("evaluate", "globalThis.seen ?? globalThis.heard")
        yield f"Seen: {json.dumps(seen)}"
        page.last("screenshot", {"path": str(path)})
        yield f"Its picture: {path}"
    except (BrowserError, TimeoutError) as error:
        yield f"It cannot be looked at: {error}"
