"""Batches of prompts for a language model: a job for the batch, and a child for each prompt.

`llm.batch` has the prompts asked, some at a time, and lets go of its worker meanwhile. `llm.prompt`
asks one, of any endpoint that speaks OpenAI's API; what the model says is seen as it comes.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any, Final

from celery import Task

from livejobs import current_job
from livejobs.errors import DatabaseUnavailable
from livejobs.running import RunningJob
from livejobs.usage import NewUsage, record
from livejobs_worker.app import app

from .rag.ingest import uploaded

RETRIES: Final = 6
"""How often a prompt is asked again before it fails."""


class PromptFailed(Exception):
    """A prompt was not answered."""


# -- the batch -------------------------------------------------------------------------------------


@app.task(name="llm.batch", autoretry_for=(DatabaseUnavailable,), retry_backoff=True)
def batch(
    upload: str,
    total: int,
    concurrency: int,
    options: dict[str, Any],
    asked_at: float | None = None,
) -> dict[str, Any] | None:
    """Have all prompts of a file asked, `concurrency` of them at a time.

    While it waits for them, it shows what they hand in.

    Args:
        upload: A file in the folder of uploads, a JSON object with a `prompt` on each line.
        total: How many lines it has.
        options: Named arguments of each `llm.prompt`.
        asked_at: When they were asked, in seconds since 1970; None: they are still to be asked.

    Returns:
        What `summary` does.

    Raises:
        IngestError: The file is gone.
    """
    job = current_job()
    if asked_at is not None:
        return summary(job, asked_at)
    job.progress(0, total, stage="prompts")
    with uploaded(upload, upload).open("rb") as file:
        prompts = (json.loads(line) for line in file)
        then = batch.s(upload, total, concurrency, options, time.time())
        job.spawn_many(prompt, prompts, options, at_once=concurrency, on_children_done=then)
    return None


def summary(job: RunningJob, asked_at: float) -> dict[str, Any]:
    """What came of a batch: `done`, of these `failed`, `prompt_tokens`, `tokens`,
    `tokens_per_second` and `seconds`.
    """
    counts = job.counts()
    seconds = max(time.time() - asked_at, 0.001)
    sums = {name: counts.sums.get(name, 0) for name in ("prompt_tokens", "tokens")}
    speed = round(sums["tokens"] / seconds, 1)
    failed = counts.total - counts.completed
    message = f"{counts.total} done, {failed} failed, {sums['tokens']} tokens ({speed:g}/s)"
    shown = {"failed": failed, **sums, "tokens_per_second": speed}
    job.progress(counts.total, counts.total, stage="prompts", message=message, **shown)
    return {"done": counts.total, **shown, "seconds": round(seconds, 3)}


# -- a prompt --------------------------------------------------------------------------------------


@app.task(name="llm.prompt", bind=True, max_retries=RETRIES)
def prompt(self: Task, asked: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Ask one prompt; the answer is output as it comes.

    Args:
        asked: Its `prompt`, and where it has them its own `system` and `id`.
        **options: `model`, `system`, `max_tokens` and `temperature`, each of which may be missing.

    Returns:
        `prompt`, `id` where it has one, `text`, `model`, `finish_reason`, `prompt_tokens` and
        `tokens`.

    Raises:
        PromptFailed: The endpoint refused it, or did not answer however often it was asked.
    """
    # What it imports takes a second, for which a worker that asks nothing need not wait.
    from . import completions

    job = current_job()
    try:
        answer = asyncio.run(completions.ask(job, options | asked))
    except completions.APIError as error:
        failed = PromptFailed(completions.said(error))
        if not completions.may_pass(error):
            raise failed from None
        wait = completions.pause(error, self.request.retries)
        raise self.retry(exc=failed, countdown=wait) from None
    job.hand_in(tokens=answer["tokens"], prompt_tokens=answer["prompt_tokens"])
    if job.owner:
        # Committed together with the result: what is answered is billed, once.
        for meter in ("prompt_tokens", "tokens"):
            used = NewUsage(
                owner=job.owner,
                customer=job.owner[:100],
                meter=f"llm_{meter}",
                value=answer[meter],
                key=f"{job.id}:{meter}",
            )
            job.complete_with(partial(record, used))
    return {name: asked[name] for name in ("id", "prompt") if name in asked} | answer
