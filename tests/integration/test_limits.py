"""Connections that are too many: of one owner, from one address, or for the process's files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from livejobs.settings import Settings
from livejobs_server.push import takeover

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    SEAMS,
    LiveServer,
    RemoteServer,
    closed,
    event_messages,
    event_stream,
    on_sqlite,
    receive_until,
    running_server,
    send,
    subscribe,
)
from ..support.servers import child, free_port
from ..support.waiting import wait_until, wait_until_async
from ..support.worker import environment

pytest_plugins = ["tests.support.live_stack"]


@contextlib.asynccontextmanager
async def limited(
    settings: Settings, seam: dict[str, Any], **limits: int
) -> AsyncIterator[LiveServer]:
    async with running_server(settings.model_copy(update=limits), **seam) as server:
        yield server


async def refusals(server: RemoteServer, job: LedJob, owner: str = "alice") -> list[Any]:
    """How each transport is refused."""
    told: list[Any] = []
    async with server.socket(owner=owner) as socket:
        told.append((await closed(socket))[0])
    path, body = f"/v1/jobs/{job.id}", {"subscribe": [{"job_id": job.id}]}
    async with server.client(owner) as client:
        stream = await client.get(f"{path}/events")
        told.append(
            (stream.status_code, bool(re.search(r"^retry: [1-9]\d{3,4}$", stream.text, re.M)))
        )
        tag = {"If-None-Match": (await client.get(path)).headers["etag"]}
        for answer in (
            await client.post("/v1/events", json=body),
            await client.post("/v1/poll", json=body),
            await client.get(f"{path}?wait=20", headers=tag),
        ):
            assert 1 <= int(answer.headers["retry-after"]) <= 30
            told.append((answer.status_code, answer.json()["code"]))
    return told


TOO_MANY = [4429, (200, True), *[(429, "too_many_connections")] * 3]
FULL = [4429, (200, True), *[(503, "server_full")] * 3]


@on_sqlite
async def test_owner_with_enough_connections_is_refused_by_every_transport(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob
) -> None:
    job = await make_job()
    async with limited(settings, seam, max_owner_connections=2) as server:
        async with (
            server.socket() as first,
            server.client() as client,
            event_stream(client, f"/v1/jobs/{job.id}/events") as events,
        ):
            await subscribe(first, job.id)
            await event_messages(events, "job")
            assert await refusals(server, job) == TOO_MANY
            # One that says who it is later is let in until then.
            async with server.socket(owner=None) as late:
                await send(late, op="auth", token=server.token())
                code, reason = await closed(late)
                assert (code, "come back in" in reason) == (4429, True)
            async with server.socket(owner="bob") as other:
                await send(other, op="ping")
                await receive_until(other, "pong")
            await job.claim()
            await receive_until(first, "job")
        await server.has_forgotten_all()
        async with server.socket() as again:
            await subscribe(again, job.id)


@on_sqlite
async def test_address_with_enough_connections_is_refused_by_every_transport(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob
) -> None:
    job = await make_job()
    async with (
        limited(settings, seam, max_address_connections=1) as server,
        server.socket(owner="bob") as first,
    ):
        await subscribe(first, (await make_job(owner="bob")).id)
        assert await refusals(server, job) == TOO_MANY
        # From behind a proxy that is trusted, it is its client that counts.
        told = {"X-Forwarded-For": "10.1.2.3"} | server.headers()
        async with server.socket(additional_headers=told) as behind:
            await subscribe(behind, job.id)
        assert server.services.gate.refused["address"] == 5


@on_sqlite
async def test_address_is_not_what_a_client_says_that_is_no_trusted_proxy(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob
) -> None:
    job = await make_job()
    options = seam | {"forwarded_allow_ips": "10.0.0.0/8"}
    async with (
        limited(settings, options, max_address_connections=1) as server,
        server.socket() as first,
    ):
        await subscribe(first, job.id)
        forged = {"X-Forwarded-For": "10.1.2.3"} | server.headers()
        async with server.socket(additional_headers=forged) as second:
            assert (await closed(second))[0] == 4429


@on_sqlite
async def test_connection_over_which_nothing_is_asked_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, make_job: MakeJob
) -> None:
    job = await make_job()
    async with running_server(settings, **SEAMS["takeover"]) as server, server.socket() as viewer:
        await subscribe(viewer, job.id)
        monkeypatch.setattr(takeover, "REQUEST_SECONDS", 0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        # Those who asked for something stay.
        await job.claim()
        await receive_until(viewer, "job")


# -- open files ----------------------------------------------------------------------------------

LIMIT = 160
RESERVED = 60
COMMANDS = {
    "asgi": (
        *("-m", "uvicorn", "--factory", "livejobs_server.app:create_app"),
        *("--host", "127.0.0.1"),
    ),
    "takeover": ("-m", "livejobs_server.cli", "server", "--host", "127.0.0.1"),
}


class SmallServer(RemoteServer):
    """A server process that may open few files."""

    def __init__(self, settings: Settings, port: int, pid: int, log: Path) -> None:
        super().__init__(settings, port)
        self._pid = pid
        self._log = log

    @property
    def open_files(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    @property
    def cpu_seconds(self) -> float:
        """What it has used."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()


@pytest.fixture(params=COMMANDS)
def small_server(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[SmallServer]:
    """A server process with a low limit of open files."""
    port, log = free_port(), tmp_path / "server.log"
    served = [sys.executable, *COMMANDS[request.param], "--port", str(port)]
    command = ["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *served]
    env = environment(settings) | {"LIVEJOBS_RESERVED_FILES": str(RESERVED)}
    with child(command, log, env) as process:
        wait_until(lambda: _answers(port), description="the server answers", seconds=40)
        yield SmallServer(settings, port, process.pid, log)
    sys.stdout.write(log.read_text())


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return False


async def becomes_true(ask: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(200):
        if await ask():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not")


@on_sqlite
async def test_server_near_its_limit_of_files_refuses_new_viewers_and_keeps_the_old_ones(
    small_server: SmallServer, make_job: MakeJob
) -> None:
    server, job = small_server, await make_job()
    async with contextlib.AsyncExitStack() as stack:
        viewers: list[ClientConnection] = []
        refused: set[int] = set()
        while len(viewers) < LIMIT and not refused:
            with contextlib.suppress(ConnectionClosed):
                socket = await stack.enter_async_context(server.socket())
                await send(socket, op="subscribe", job_id=job.id)
                await receive_until(socket, "job")
                viewers.append(socket)
                continue
            refused.add(socket.close_code or 0)
        assert refused == {4429}
        assert len(viewers) >= LIMIT - RESERVED - 60
        assert await refusals(server, job) == FULL
        # Its own connections work: the job goes on, and REST answers from the database.
        await job.claim()
        for socket in viewers:
            assert (await receive_until(socket, "job"))[-1]["job"]["status"] == "processing"
        async with server.client() as client:
            assert (await client.get(f"/v1/jobs/{job.id}")).json()["status"] == "processing"
        assert "new viewers are refused" in server.log
        for socket in viewers[:20]:
            await socket.close()

        async def is_let_in() -> bool:
            with contextlib.suppress(ConnectionClosed, InvalidStatus):
                async with server.socket() as socket:
                    await subscribe(socket, job.id)
                    return True
            return False

        await becomes_true(is_let_in)


@on_sqlite
async def test_server_at_its_limit_of_files_does_not_spin_and_lives_on(
    small_server: SmallServer, make_job: MakeJob
) -> None:
    server, job = small_server, await make_job()
    async with server.socket() as viewer:
        await subscribe(viewer, job.id)
        # Connections that say nothing: more than there are files.
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * LIMIT)]
        try:
            await wait_until_async(
                lambda: server.open_files >= LIMIT - RESERVED, description="it is full"
            )
            before = server.cpu_seconds
            await asyncio.sleep(3)
            assert server.cpu_seconds - before < 1.5
            await job.claim()
            assert (await receive_until(viewer, "job"))[-1]["job"]["status"] == "processing"
        finally:
            for peer in idle:
                peer.close()

        async def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError, InvalidMessage):
                async with server.client() as client:
                    return (await client.get(f"/v1/jobs/{job.id}")).status_code == 200
            return False

        await becomes_true(answers)
