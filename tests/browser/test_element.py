"""`<job-progress>`: what people see, what screen readers are told, what its page hears."""

from __future__ import annotations

from typing import Any

from ..support.browser import Context, Page
from ..support.stage import Stage
from ..support.web_proxy import WebProxy


async def put_in(window: Context, proxy: WebProxy, **attributes: str) -> Page:
    """A page with the element."""
    page = await window.page()
    await page.goto(f"{proxy.url}/page/element.html")
    await page.evaluate("show", attributes)
    return page


async def shows(page: Page, **expected: Any) -> None:
    """Wait until it is at this status and percentage, and check all the rest."""
    await page.until(
        "(status, percent) => shown().status === status && shown().percent === percent",
        expected["status"],
        expected["percent"],
        description=f"{expected['status']} at {expected['percent']}",
    )
    assert await page.evaluate("shown()") == expected


async def test_element_shows_and_tells_a_job_from_its_start_to_its_end(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    job = await stage.dictate(4)
    page = await put_in(window, proxy, job=job.id, label="Reading a.pdf")
    await shows(
        page,
        **{"status": "processing", "indeterminate": True, "text": "processing"},
        **{"percent": "", "fill": "", "now": None},
        **{"label": "Reading a.pdf", "said": "processing", "announced": ""},
    )
    job.say(2)
    await shows(
        page,
        **{"status": "processing", "indeterminate": False, "text": "processing"},
        **{"percent": "50 %", "fill": "50%", "now": "50"},
        **{"label": "Reading a.pdf", "said": "50 %, processing", "announced": ""},
    )
    job.end()
    await page.until("heard.at(-1)[0] === 'job-end'", description="the end is told")
    await shows(
        page,
        **{"status": "completed", "indeterminate": False, "text": "completed"},
        **{"percent": "100 %", "fill": "100%", "now": "100"},
        **{"label": "Reading a.pdf", "said": "100 %, completed"},
        announced="Reading a.pdf: completed",
    )
    heard = await page.evaluate("heard")
    assert {name for name, _ in heard[:-1]} == {"job-change"}
    assert heard[-2:] == [["job-change", "completed"], ["job-end", "completed"]]
    assert await page.evaluate("view()") == await stage.job(job.id)


async def test_element_that_comes_after_the_end_announces_nothing(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    job_id = await stage.start("fail", "the oven went out")
    await stage.is_over(job_id)
    page = await put_in(window, proxy, job=job_id)
    await shows(
        page,
        **{"status": "failed", "indeterminate": False, "text": "the oven went out"},
        **{"percent": "", "fill": "", "now": None},
        **{"label": "tests.support.jobs_app.fail", "said": "the oven went out", "announced": ""},
    )
    await page.until("heard.at(-1)[0] === 'job-end'", description="the end is told")


async def test_element_of_a_job_that_cannot_be_seen_says_so(
    window: Context, proxy: WebProxy
) -> None:
    page = await put_in(window, proxy, job="nothing-is-called-so")
    await page.until("shown().status === 'unknown'", description="it is unknown")
    shown = await page.evaluate("shown()")
    assert shown["text"]
    assert shown == {
        **{"status": "unknown", "indeterminate": False, "text": shown["text"]},
        **{"percent": "", "fill": "", "now": None},
        **{"label": "job", "said": shown["text"], "announced": ""},
    }
    assert await page.evaluate("heard") == [["job-problem", "unknown_job"]]


async def test_element_without_a_job_is_empty_and_takes_one_later(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    page = await put_in(window, proxy, label="Baking")
    assert await page.evaluate("shown()") == {
        **{"status": None, "indeterminate": False, "text": "", "percent": "", "fill": ""},
        **{"now": None, "label": "Baking", "said": "", "announced": ""},
    }
    one, other = await stage.dictate(4), await stage.dictate(4)
    one.say(1)
    other.say(3)
    for job, percent in ((one, "25 %"), (other, "75 %")):
        await page.evaluate("show", {"job": job.id})
        await page.until(
            "percent => shown().percent === percent", percent, description=f"at {percent}"
        )
