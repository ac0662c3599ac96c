"""React's hooks in a page, in React's strict mode, which mounts everything twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ..support.browser import Context, Page
from ..support.stage import Stage
from ..support.web_proxy import web_proxy

CLIENT = Path(__file__).resolve().parents[2] / "client-js"
PAGE = Path(__file__).with_name("react")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page, as an app's bundler makes it."""
    folder = tmp_path_factory.mktemp("react")
    (folder / "index.html").write_bytes((PAGE / "index.html").read_bytes())
    modules = CLIENT / "node_modules"
    command = [
        *(str(modules / ".bin" / "esbuild"), str(PAGE / "page.js"), "--bundle", "--format=esm"),
        f"--alias:livejobs={CLIENT / 'src' / 'index.js'}",
        f"--alias:livejobs/react={CLIENT / 'src' / 'react.js'}",
        *("--define:process.env.NODE_ENV='development'", "--log-level=warning"),
        f"--outfile={folder / 'bundle.js'}",
    ]
    subprocess.run(command, env=os.environ | {"NODE_PATH": str(modules)}, check=True, timeout=60)
    return folder


@pytest.fixture
async def page(stage: Stage, window: Context, bundle: Path) -> AsyncIterator[Page]:
    """The page."""
    answers = {"/page/token": stage.token}
    async with web_proxy(stage.server.port, {"/page/": bundle}, answers) as proxy:
        page = await window.page()
        await page.goto(f"{proxy.url}/page/index.html")
        yield page


async def draws(page: Page, **expected: Any) -> None:
    """Wait until the job is drawn so."""
    await page.until(
        "expected => Object.entries(expected).every(([name, value]) => "
        "drawn('output')?.[name] === value)",
        expected,
        description=f"the job is drawn as {expected}",
    )


async def test_job_is_drawn_at_each_change_to_its_end(stage: Stage, page: Page) -> None:
    job = await stage.dictate(4)
    await page.evaluate("draw", job.id, {"entries": True})
    job.say(3)
    await draws(page, id=job.id, status="processing", current=3, entries=3, ended=False)
    job.end()
    await draws(page, id=job.id, status="completed", entries=3, ended=True, error=None)


async def test_component_takes_another_job_none_and_one_that_is_not_there(
    stage: Stage, page: Page
) -> None:
    one, other = await stage.dictate(4), await stage.dictate(4)
    one.say(1)
    other.say(2)
    await page.evaluate("draw", one.id)
    await draws(page, id=one.id, current=1, entries=0)
    await page.evaluate("draw", other.id)
    await draws(page, id=other.id, current=2)
    await page.evaluate("draw", None)
    await draws(page, id=None, status=None)
    await page.evaluate("draw", "nothing-is-called-so")
    await draws(page, id=None, error="unknown_job")


async def test_feed_is_drawn_and_nothing_is_watched_once_it_is_gone(
    stage: Stage, page: Page
) -> None:
    await page.evaluate("draw", None, {"jobs": True})
    job = await stage.dictate(4)
    for status in ("processing", "completed"):
        await page.until(
            "(id, status) => drawn('pre')?.some((job) => job[0] === id && job[1] === status)",
            job.id,
            status,
            description=f"the job is {status}",
        )
        job.end()
    await page.evaluate("unmount()")
    await page.until("state().status === 'idle'", description="nothing is watched")
