"""The built-in worker's app, with a count, in Redis, of how often each page of a PDF was read."""

from __future__ import annotations

import os
import time
from typing import Any

import pypdf
import redis

from livejobs_worker.app import app as app

READ = "tests:pages"
"""A hash: the page's number, from 0, and how often its text was taken out of it."""
PAUSE_SECONDS = 0.02
"""A page takes a while, so that there is a middle of a document."""


def _count_pages(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    extract_text = pypdf.PageObject.extract_text

    def counted(page: pypdf.PageObject, *args: Any, **kwargs: Any) -> str:
        client.hincrby(READ, str(page.page_number), 1)
        time.sleep(PAUSE_SECONDS)
        return extract_text(page, *args, **kwargs)

    pypdf.PageObject.extract_text = counted  # type: ignore[method-assign,assignment]


_count_pages(os.environ["REDIS_URL"])
