"""livejobs' own pages, of a job and of all jobs, which nobody may have to reload either."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, delete, update

from livejobs.database import AsyncDatabase, Database
from livejobs.models import Deletion
from livejobs.statements import jobs
from livejobs.views import Status
from livejobs_server import create_key

from ..support.browser import Context, Page
from ..support.stage import OWNER, DictatedJob, Stage
from ..support.waiting import wait_until_async
from ..support.web_proxy import WebProxy
from .conftest import MakeProxy
from .viewing import BY_REFUSING, time_passes_until

Shown = Sequence[Sequence[str | None]]

SIGN_IN = """async (key) => {
  const headers = { "Content-Type": "application/json" };
  await fetch("/v1/session", { method: "POST", headers, body: JSON.stringify({ key }) });
}"""
SHOWN = """({
  status: document.querySelector(".details")?.dataset.status,
  percent: document.querySelector(".meter-percent")?.innerText,
  lines: [...document.querySelectorAll(".details-main .log li")].map(
    (item) => item.innerText.match(/entry .*/)?.[0]
  ),
})"""

LISTED = """(ids) => ids.map((id) => {
  const row = document.querySelector(`.row[data-job="${id}"]`);
  return [row?.dataset.status, row?.querySelector(".row-percent").innerText];
})"""
HAS_STATUS = """([id, status]) =>
  document.querySelector(`.row[data-job="${id}"]`)?.dataset.status === status"""
PROBLEM = 'document.querySelector("#list-problem").checkVisibility()'
AWAY_FOR_YEARS = """{
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (text) {
    send.call(this, text.replace(/"since":"[^"]+"/, '"since":"2001-01-01T00:00:00.000Z"'));
  };
}"""

HELD_BACK = """{
  const { send } = WebSocket.prototype;
  const held = [];
  WebSocket.prototype.send = function (text) {
    held.push(() => send.call(this, text));
  };
  window.letGo = () => {
    WebSocket.prototype.send = send;
    for (const act of held) act();
  };
}"""


async def test_page_of_a_job_ends_right_though_the_server_was_killed(
    stage: Stage, window: Context, make_proxy: MakeProxy
) -> None:
    """On each transport."""
    await window.call("clock.install")
    job = await stage.dictate(12)
    proxies = [await make_proxy() for _ in BY_REFUSING]
    for proxy, refused in zip(proxies, BY_REFUSING.values(), strict=True):
        proxy.refused = refused
    key = await new_key(stage)
    pages = [await page_of(job, window, proxy, key) for proxy in proxies]
    job.say(6)
    await time_passes_until(window, lambda: all_show(pages, job, "processing", "50 %"))
    stage.server.kill()
    job.say(6)
    job.end()
    await asyncio.to_thread(stage.server.start)
    await time_passes_until(window, lambda: all_show(pages, job, "completed", "100 %"))


async def test_list_goes_on_though_the_server_was_killed(
    stage: Stage, window: Context, make_proxy: MakeProxy
) -> None:
    """On each transport: with a job that runs on, one that ends meanwhile and one that begins."""
    await window.call("clock.install")
    jobs = [await stage.dictate(10) for _ in range(3)]
    lasting, ending, waiting = jobs  # The worker has room for two.
    proxies = [await make_proxy() for _ in BY_REFUSING]
    for proxy, refused in zip(proxies, BY_REFUSING.values(), strict=True):
        proxy.refused = refused
    key = await new_key(stage)
    pages = [await list_in(window, proxy, key) for proxy in proxies]
    lasting.say(3)
    ending.say(6)
    before = [["processing", "30 %"], ["processing", "60 %"], ["pending", ""]]
    await time_passes_until(window, lambda: all_list(pages, jobs, before))
    stage.server.kill()
    lasting.say(2)
    ending.end()
    waiting.say(4)
    await asyncio.to_thread(stage.server.start)
    after = [["processing", "50 %"], ["completed", ""], ["processing", "40 %"]]
    await time_passes_until(window, lambda: all_list(pages, jobs, after))
    lasting.end()
    waiting.end()
    await time_passes_until(window, lambda: all_list(pages, jobs, [["completed", ""]] * 3))


async def test_list_that_was_away_for_long_shows_no_job_that_is_gone(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    """What was deleted is told for a day; who comes back later has to ask for the whole list."""
    await window.call("clock.install")
    await window.call("addInitScript", {"content": AWAY_FOR_YEARS})
    job = await stage.dictate(10)
    page = await list_in(window, proxy, await new_key(stage))
    job.end()
    await time_passes_until(window, lambda: all_list([page], [job], [["completed", ""]]))
    await proxy.cut()
    async with stage.client() as client:
        (await client.delete(f"/v1/jobs/{job.id}")).raise_for_status()
    await forget_deletions(stage)
    await proxy.open()
    await time_passes_until(window, lambda: all_list([page], [job], [[None, None]]))


async def test_list_shows_the_end_of_a_job_that_came_before_its_feed_began(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    """A feed begins with the jobs that are open by then; the list was loaded before."""
    await window.call("addInitScript", {"content": HELD_BACK})
    job = await stage.dictate(10)
    page = await list_in(window, proxy, await new_key(stage))
    await page.until(HAS_STATUS, [job.id, "processing"], description="the job is listed")
    await end_long_ago(stage, job)
    await page.evaluate("() => letGo()")
    await page.until(HAS_STATUS, [job.id, "completed"], description="its end is shown")


async def test_list_that_was_asked_for_while_the_server_was_away_comes_by_itself(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    await window.call("clock.install")
    job = await stage.dictate(10)
    page = await list_in(window, proxy, await new_key(stage))
    job.say(5)
    await time_passes_until(window, lambda: all_list([page], [job], [["processing", "50 %"]]))
    stage.server.kill()
    await page.call("fill", "[name=q]", job.id)
    await page.until(PROBLEM, description="the list could not be loaded")
    await asyncio.to_thread(stage.server.start)

    async def is_there() -> None:
        assert not await page.evaluate(PROBLEM)
        await all_list([page], [job], [["processing", "50 %"]])

    await time_passes_until(window, is_there)


async def end_long_ago(stage: Stage, job: DictatedJob) -> None:
    """Let a job end, further back than a server looks for what it was not told of."""
    job.end()
    own = and_(jobs.c.id == job.id, jobs.c.status == Status.COMPLETED)
    earlier = update(jobs).where(own).values(updated_at=datetime.now(UTC) - timedelta(minutes=1))
    database = Database(stage.settings)

    def is_done() -> bool:
        with database.begin() as connection:
            return connection.execute(earlier).rowcount == 1

    await wait_until_async(is_done, description="the job has ended")
    database.close()


async def forget_deletions(stage: Stage) -> None:
    """As the server does after a day."""
    database = AsyncDatabase(stage.settings)
    async with database.begin() as connection:
        await connection.execute(delete(Deletion))
    await database.dispose()


async def new_key(stage: Stage) -> str:
    """An API key of Ada's."""
    database = AsyncDatabase(stage.settings)
    made = await create_key(database, OWNER, ("read", "write"))
    await database.dispose()
    return made.key


async def page_of(job: DictatedJob, window: Context, proxy: WebProxy, key: str) -> Page:
    """The page of a job, where somebody has signed in."""
    page = await signed_in(window, proxy, key)
    await page.goto(f"{proxy.url}/jobs/{job.id}")
    return page


async def list_in(window: Context, proxy: WebProxy, key: str) -> Page:
    """The first page, where somebody has signed in."""
    page = await signed_in(window, proxy, key)
    await page.goto(f"{proxy.url}/")
    return page


async def signed_in(window: Context, proxy: WebProxy, key: str) -> Page:
    """A page that has the cookie of a session."""
    page = await window.page()
    await page.goto(f"{proxy.url}/sign-in")
    await page.evaluate(SIGN_IN, key)
    return page


async def all_show(pages: list[Page], job: DictatedJob, status: str, percent: str) -> None:
    """Hold all pages against the job."""
    for page in pages:
        shown = await page.evaluate(SHOWN)
        assert shown == {"status": status, "percent": percent, "lines": job.lines}


async def all_list(pages: list[Page], jobs: list[DictatedJob], expected: Shown) -> None:
    """Hold status and percent of these jobs in all lists against what is expected."""
    for page in pages:
        assert await page.evaluate(LISTED, [job.id for job in jobs]) == expected
