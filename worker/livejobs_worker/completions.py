"""Asks a language model by OpenAI's API, for `llm.prompt`, and says what its errors mean."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from openai import APIError as APIError
from openai import APIStatusError, AsyncOpenAI, Timeout

from livejobs.running import RunningJob
from livejobs.settings import get_settings

LONGEST_WAIT_SECONDS: Final = 3600.0
"""However long the endpoint asks for."""
SILENCE: Final = Timeout(300.0, connect=10.0)
"""Seconds without a token after which a request has failed."""
CANCEL_SECONDS: Final = 0.2
"""How soon a cancel stops a stream that says nothing."""


async def ask(job: RunningJob, asked: dict[str, Any]) -> dict[str, Any]:
    """Stream an answer; a cancel of the job ends the stream, even while nothing comes.

    Raises:
        APIError: The endpoint refused it, broke off, or could not be reached.
        JobCancelled, JobLost: The job is not to go on.
    """
    settings = get_settings()
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else "none"
    # Asking again is the job's: so it is seen, waits without a worker, and survives it.
    client = AsyncOpenAI(
        base_url=settings.llm_base_url, api_key=key, max_retries=0, timeout=SILENCE
    )
    async with client:
        answering = asyncio.create_task(stream(client, job, asked))
        try:
            while not answering.done():
                job.check()
                await asyncio.wait({answering}, timeout=CANCEL_SECONDS)
            return answering.result()
        finally:
            answering.cancel()
            await asyncio.wait({answering})


async def stream(client: AsyncOpenAI, job: RunningJob, asked: dict[str, Any]) -> dict[str, Any]:
    """Send the request and take its answer apart."""
    roles = (("system", asked.get("system")), ("user", asked["prompt"]))
    messages: Any = [{"role": role, "content": text} for role, text in roles if text]
    shown = " ".join(asked["prompt"].split())[:100]
    limits = {name: asked[name] for name in ("max_tokens", "temperature") if name in asked}
    model = asked.get("model") or get_settings().llm_model or "default"
    pieces: list[str] = []
    finish_reason = usage = None
    async with await client.chat.completions.create(
        model=model,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        **limits,
    ) as chunks:
        async for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices[:1]:
                finish_reason = choice.finish_reason or finish_reason
                if choice.delta.content:
                    pieces.append(choice.delta.content)
                    job.output(choice.delta.content)
                    most = limits.get("max_tokens")
                    job.progress(len(pieces), most, stage="tokens", message=shown)
    if finish_reason is None:
        raise APIError("the answer broke off", chunks.response.request, body=None)
    return {
        "text": "".join(pieces),
        "model": model,
        "finish_reason": finish_reason,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "tokens": usage.completion_tokens if usage else len(pieces),
    }


# -- what went wrong -------------------------------------------------------------------------------


def may_pass(error: APIError) -> bool:
    """Whether the same request may be answered later: it was too many, or the fault of others."""
    if isinstance(error, APIStatusError):
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return True


def pause(error: APIError, retries: int) -> float:
    """Seconds until the prompt is asked again: what the endpoint says, else longer each time."""
    if isinstance(error, APIStatusError) and (after := error.response.headers.get("retry-after")):
        try:
            seconds = float(after)
        except ValueError:
            seconds = until(after)
        return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
    return float(min(2**retries, 60)) * random.uniform(0.5, 1.0)


def until(date: str) -> float:
    """Seconds until a date of HTTP's; 0 where it is none."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def said(error: APIError) -> str:
    """An error in a line for people."""
    status = f"{error.status_code}: " if isinstance(error, APIStatusError) else ""
    return f"The model's endpoint answered {status}{error.message}"[:1000]
