"""Small tasks to try livejobs with; each can be started by `POST /v1/jobs`."""

from __future__ import annotations

import time
from typing import Any

from livejobs import current_job

from .app import app

MAX_SECONDS = 3600.0


class CountFailed(Exception):
    """The failure that `demo.count` was asked for."""


@app.task(name="demo.count", bind=True, max_retries=3)
def count(
    self: Any, steps: int = 20, seconds: float = 5.0, fail_at: int | None = None, retries: int = 0
) -> dict[str, int]:
    """Count to `steps`, taking `seconds` in all.

    Args:
        fail_at: Fail at this step.
        retries: Of these failures, how many are tried again after a second.

    Raises:
        CountFailed: Step `fail_at` was reached and no retry is left.
    """
    job = current_job()
    pause = min(max(seconds, 0.0), MAX_SECONDS) / max(steps, 1)
    for step in job.track(range(1, steps + 1), stage="count"):
        if step == fail_at:
            error = CountFailed(f"step {step} was asked to fail")
            if self.request.retries < retries:
                raise self.retry(exc=error, countdown=1)
            raise error
        job.log(f"step {step} of {steps}")
        time.sleep(pause)
    return {"counted": steps}


@app.task(name="demo.split")
def split(parts: int = 6, steps: int = 20, seconds: float = 5.0) -> None:
    """Have `parts` children count to `steps`, and add up what came of them."""
    job = current_job()
    options = {"steps": steps, "seconds": seconds}
    job.spawn_many(count, [()] * max(parts, 0), options, on_children_done=add_up.s())


@app.task(name="demo.add_up")
def add_up() -> dict[str, int]:
    """What goes on after the children of `demo.split`."""
    done = [child for child in current_job().children() if child.status == "completed"]
    return {"parts": len(done), "counted": sum(child.result["counted"] for child in done)}


@app.task(name="demo.say")
def say(text: str = "Jobs are seen as they run.", seconds: float = 3.0) -> dict[str, int]:
    """Put out `text` word by word, as a language model would."""
    job = current_job()
    words = text.split()
    pause = min(max(seconds, 0.0), MAX_SECONDS) / max(len(words), 1)
    for word in job.track(words, stage="say"):
        job.output(word + " ")
        time.sleep(pause)
    return {"words": len(words)}
