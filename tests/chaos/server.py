"""The server that is broken: as ever, and it also tells what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from sqlalchemy import make_url

from livejobs_server import create_app
from livejobs_server.push import rounds

from .breaks import break_as_told

ROUNDS_VARIABLE: Final = "CHAOS_ROUNDS"
"""Set to "never" for a server that makes no rounds, on which nothing else mends a wrong order."""
STATE: Final = "/chaos/state"
_ESTABLISHED: Final = "01"
"""As in /proc/net/tcp."""


def _app() -> FastAPI:
    break_as_told()
    if os.environ.get(ROUNDS_VARIABLE) == "never":
        rounds.ROUND_SECONDS = 86_400.0  # type: ignore[misc]
    made = create_app()
    made.add_api_route(STATE, _state)
    # Before those of livejobs, one of which takes every path.
    made.router.routes.insert(0, made.router.routes.pop())
    return made


async def _state() -> dict[str, int]:
    """What this process holds now."""
    hub, feeds = app.state.livejobs.hub, app.state.livejobs.feeds
    return {
        "viewers": hub.viewers,
        "topics": hub.topics,
        "lagging": hub.lagging,
        "feeds": feeds.feeds,
        "tasks": len(asyncio.all_tasks()),
        **_connections(),
        "kilobytes": _resident_kilobytes(),
    }


def _connections() -> dict[str, int]:
    """Connections that are up: those that came in, and those to the stores."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            own.add(descriptor.readlink().name)
    stores = {_port("REDIS_URL"): "to_valkey", _port("DATABASE_URL"): "to_postgres"}
    found = {"clients": 0} | dict.fromkeys(stores.values(), 0)
    for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]:
        _, _, remote, state, *rest = line.split()
        if f"socket:[{rest[5]}]" in own and state == _ESTABLISHED:
            found[stores.get(int(remote.partition(":")[2], 16), "clients")] += 1
    return found


def _port(variable: str) -> int | None:
    return make_url(os.environ[variable]).port


def _resident_kilobytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


app = _app()
