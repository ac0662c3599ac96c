"""Somebody's app, run from its folder as a page of the documentation says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from livejobs.settings import Settings

from .worker import environment


def beside(settings: Settings, folder: Path, **more: str) -> dict[str, str]:
    """The environment of a process that finds the modules in `folder`."""
    path = environment(settings)["PYTHONPATH"]
    return {"PYTHONPATH": f"{folder}:{path}", "PYTHONDONTWRITEBYTECODE": "1", **more}


def watched(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All messages of an event stream, to its end."""
    with connect_sse(client, "GET", path) as source:
        return [json.loads(event.data) for event in source.iter_sse()]


def last_view(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The view that a viewer of these messages ends with."""
    assert messages[-1]["type"] == "end"
    view: dict[str, Any] = [m["job"] for m in messages if m["type"] == "job"][-1]
    return view
