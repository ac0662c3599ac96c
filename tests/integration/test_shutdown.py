"""A real server process that is asked to stop while viewers of all kinds are attached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from livejobs.settings import Settings
from livejobs.watching import ConnectionEvent, watch
from livejobs_server.push.departure import SAME_SECONDS

from ..conftest import SECRET
from ..support.launching import Process
from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    Message,
    RemoteServer,
    closed,
    event_messages,
    event_stream,
    receive_until,
    send,
)
from ..support.server import HttpServer
from ..support.servers import child, free_port
from ..support.waiting import wait_until_async
from ..support.worker import environment

pytest_plugins = ["tests.support.live_stack"]

STOP_SECONDS = 5.0
"""A server with viewers attached ends within this time."""

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class ServerProcess(RemoteServer):
    """A server in a process of its own."""

    def __init__(self, settings: Settings, port: int, process: Process) -> None:
        super().__init__(settings, port)
        self._process = process

    def ask(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop."""
        self._process.send_signal(number)

    async def has_ended(self) -> None:
        """Wait until it has ended."""
        await wait_until_async(
            lambda: self._process.poll() is not None, description="the server ends"
        )

    async def stop(self) -> float:
        """Ask it to stop; the seconds until it has ended."""
        asked_at = time.monotonic()
        self.ask()
        await self.has_ended()
        return time.monotonic() - asked_at

    @property
    def exit_code(self) -> int | None:
        """What it ended with."""
        return self._process.poll()


WEB = """
from fastapi import FastAPI
import livejobs_server

app = FastAPI()
livejobs_server.mount(app)
"""
LIVEJOBS = (sys.executable, "-m", "livejobs_server.cli", "server", "--host", "127.0.0.1")
COMMANDS = {
    "asgi": (
        *(sys.executable, "-m", "uvicorn", "--factory", "livejobs_server.app:create_app"),
        *("--host", "127.0.0.1", "--timeout-graceful-shutdown", "3"),
    ),
    "takeover": LIVEJOBS,
    "mounted": (*LIVEJOBS, "--web", "web:app"),
}
"""`uvicorn` as a user would start it, `livejobs server`, and that with an app of the user's."""

StartServer = Callable[..., ServerProcess]


@pytest.fixture(params=COMMANDS)
def start_server(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[StartServer]:
    """Starts servers; call it with further variables of the environment."""
    (tmp_path / "web.py").write_text(WEB)
    env = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "LIVEJOBS_SECRETS": SECRET,
        "LIVEJOBS_DATA_DIR": str(tmp_path / "data"),
    }
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    with contextlib.ExitStack() as stack:

        def start(**more: str) -> ServerProcess:
            port = free_port()
            command = [*COMMANDS[request.param], "--port", str(port)]
            started = child(command, tmp_path / "server.log", env | {"PYTHONPATH": path} | more)
            return ServerProcess(settings, port, stack.enter_context(started))

        yield start
    sys.stdout.write((tmp_path / "server.log").read_text())


@pytest.fixture
def server_process(start_server: StartServer) -> ServerProcess:
    """A server as it comes."""
    return start_server()


async def is_up(server: ServerProcess) -> None:
    """Wait until it answers."""
    async with server.client(owner=None) as client:
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("the server did not start")


@contextlib.asynccontextmanager
async def attached(server: ServerProcess, job: LedJob) -> AsyncIterator[list[asyncio.Task[str]]]:
    """Fifty viewers of all kinds; each is a task that returns how it ended."""
    opened = asyncio.Semaphore(0)
    path = f"/v1/jobs/{job.id}"

    async def on_socket(url: str, op: Message | None, owner: str | None = "alice") -> str:
        async with server.socket(url, owner=owner) as socket:
            if op is not None:
                await send(socket, **op)
            if owner is not None:
                await receive_until(socket, "job")
            opened.release()
            return f"closed {(await closed(socket))[0]}"

    async def on_stream(method: str, url: str, body: Message | None) -> str:
        async with (
            server.client() as client,
            event_stream(client, url, method, json=body) as events,
        ):
            async for event in events:
                if event.data and json.loads(event.data)["type"] == "job":
                    opened.release()
        return "stream ended"

    async def sent(event: str, _info: Any) -> None:
        if event == "http11.send_request_body.complete":
            opened.release()

    async def on_poll() -> str:
        async with server.client() as client:
            version = (await client.get(path)).json()["version"]
            item = {"job_id": job.id, "version": version}
            body = {"subscribe": [item], "wait": 30}
            answer = await client.post("/v1/poll", json=body, extensions={"trace": sent})
            return f"answered {answer.status_code}"

    async def on_held_get() -> str:
        async with server.client() as client:
            known = {"If-None-Match": (await client.get(path)).headers["etag"]}
            url = f"{path}?wait=30"
            answer = await client.get(url, headers=known, extensions={"trace": sent})
            return f"answered {answer.status_code}"

    subscribe = {"op": "subscribe", "job_id": job.id}
    body = {"subscribe": [{"job_id": job.id}]}
    kinds = [
        lambda: on_socket("/v1/ws", subscribe),
        lambda: on_socket(f"{path}/ws", None),
        lambda: on_socket("/v1/ws", None, None),
        lambda: on_stream("GET", f"{path}/events", None),
        lambda: on_stream("POST", "/v1/events", body),
        on_poll,
        on_held_get,
    ]
    viewers = [asyncio.create_task(kinds[number % len(kinds)]()) for number in range(50)]
    async with asyncio.timeout(30):
        for _ in viewers:
            await opened.acquire()
    await is_up(server)  # It has read what was sent before it answers this.
    yield viewers
    for viewer in viewers:
        viewer.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)


async def test_server_with_viewers_of_all_kinds_ends_within_seconds_and_tells_them(
    server_process: ServerProcess, make_job: MakeJob
) -> None:
    await is_up(server_process)
    job = await make_job()
    await job.claim()
    async with attached(server_process, job) as viewers:
        took = await server_process.stop()
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*viewers)
    assert took < STOP_SECONDS
    assert set(ends) == {"closed 1012", "stream ended", "answered 503", "answered 304"}


@on_sqlite
async def test_server_with_viewers_that_read_nothing_ends_within_seconds(
    server_process: ServerProcess, make_job: MakeJob
) -> None:
    await is_up(server_process)
    job = await make_job()
    await job.claim()
    async with contextlib.AsyncExitStack() as stack:
        sockets: list[ClientConnection] = []
        for _ in range(3):
            path = f"/v1/jobs/{job.id}/ws"
            socket = await stack.enter_async_context(
                server_process.socket(path, max_queue=1, narrow=True)
            )
            await receive_until(socket, "job")
            sockets.append(socket)
        for _ in range(100):
            await job.say("x" * 100_000)
        assert await server_process.stop() < STOP_SECONDS
        for socket in sockets:
            socket.transport.abort()


# -- what viewers are told ---------------------------------------------------------------------


async def test_viewers_are_told_when_to_come_back_each_at_a_moment_of_its_own(
    start_server: StartServer, make_job: MakeJob
) -> None:
    server = start_server(LIVEJOBS_DRAIN_SPREAD="6")
    await is_up(server)
    job = await make_job()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(server.client())
        sockets = [
            await stack.enter_async_context(server.socket(f"/v1/jobs/{job.id}/ws"))
            for _ in range(10)
        ]
        for socket in sockets:
            await receive_until(socket, "job")
        streams = [
            await stack.enter_async_context(event_stream(client, f"/v1/jobs/{job.id}/events"))
            for _ in range(10)
        ]
        for events in streams:
            await event_messages(events, "job")
        item = {"job_id": job.id, "version": 1}
        held = [asyncio.create_task(hold(server, item)) for _ in range(10)]
        await asyncio.wait(held, timeout=0.5)
        await server.stop()
        after = [(await receive_until(socket, "drain"))[-1] for socket in sockets]
        assert {(await closed(socket))[0] for socket in sockets} == {1012}
        for events in streams:
            (told,) = [event async for event in events]
            after.append(json.loads(told.data))
            # What a browser heeds is the same.
            assert told.retry == after[-1]["reconnect_after_ms"]
        delays = [message["reconnect_after_ms"] for message in after]
        answers = await asyncio.gather(*held)
    assert all(0 <= delay <= 6000 for delay in delays)
    assert len(set(delays)) > 15
    assert {answer.status_code for answer in answers} == {503}
    seconds = {answer.headers["retry-after"] for answer in answers}
    assert seconds <= set("123456")
    assert len(seconds) > 1


async def hold(server: ServerProcess, item: Message) -> httpx.Response:
    """A poll that has nothing new."""
    async with server.client() as client:
        return await client.post("/v1/poll", json={"subscribe": [item], "wait": 30})


@on_sqlite
async def test_server_that_lingers_serves_on_and_sends_newcomers_away(
    start_server: StartServer, make_job: MakeJob
) -> None:
    server = start_server(LIVEJOBS_DRAIN_LINGER="60")
    await is_up(server)
    job = await make_job()
    path = f"/v1/jobs/{job.id}"
    async with server.client() as client, server.socket(f"{path}/ws") as socket:
        await receive_until(socket, "job")
        server.ask()
        await receive_until(socket, "drain")
        await job.claim()
        assert (await receive_until(socket, "job"))[-1]["job"]["status"] == "processing"
        async with server.socket(f"{path}/ws") as late:
            assert (await receive_until(late, "drain"))[-1]["reconnect_after_ms"] <= 10_000
            assert (await closed(late))[0] == 1012
        assert "retry:" in (await client.get(f"{path}/events")).text
        body = {"subscribe": [{"job_id": job.id}]}
        for url in ("/v1/events", "/v1/poll"):
            refused = await client.post(url, json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "server_leaving")
            assert 1 <= int(refused.headers["retry-after"]) <= 10
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["parts"]["server"]) == (503, "leaving")
        assert (await client.get("/healthz")).status_code == 200
        # What is asked beside it is answered.
        assert (await client.get(path)).json()["status"] == "processing"
    # With the last viewer it is gone.
    await server.has_ended()


@on_sqlite
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_a_server_that_lingers(
    start_server: StartServer, make_job: MakeJob, second: signal.Signals
) -> None:
    server = start_server(LIVEJOBS_DRAIN_LINGER="60")
    await is_up(server)
    job = await make_job()
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        await receive_until(socket, "job")
        server.ask(signal.SIGINT)
        await receive_until(socket, "drain")
        await asyncio.sleep(SAME_SECONDS)
        server.ask(second)
        await server.has_ended()


@on_sqlite
@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_python_client_comes_back_to_the_next_server(
    settings: Settings, make_job: MakeJob, tmp_path: Path, transport: Any
) -> None:
    server = HttpServer(settings, tmp_path / "log", env={"LIVEJOBS_DRAIN_SPREAD": "0.3"})
    server.start()
    job = await make_job()
    await job.claim()
    token, told, lost = RemoteServer(settings, server.port).token(), asyncio.Event(), list[str]()

    def on_connection(event: ConnectionEvent) -> None:
        if not event.connected:
            lost.append(event.reason)

    async def follow() -> list[str]:
        kinds: list[str] = []
        options: Any = {"transport": transport, "on_connection": on_connection}
        async for message in watch(job.id, url=server.url, token=token, **options):
            kinds.append(message.type)
            told.set()
        return kinds

    following = asyncio.create_task(follow())
    try:
        await asyncio.wait_for(told.wait(), 20)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await job.complete()
        kinds = await asyncio.wait_for(following, 40)
    finally:
        following.cancel()
        await asyncio.to_thread(server.stop)
    assert kinds[-2:] == ["job", "end"]
    # Between two polls nobody can be told.
    assert transport == "poll" or lost[0] == "the server goes away"


# -- in time, always -----------------------------------------------------------------------------

HANGING = """
import asyncio, contextlib, threading
from fastapi import FastAPI
import livejobs_server
import livejobs_server.serving as serving

serving.GONE_SECONDS = 1.0


@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    if {at_its_end}:
        await asyncio.Event().wait()


app = FastAPI(lifespan=lifespan)
livejobs_server.mount(app)


@app.get("/hang")
def hang():
    threading.Event().wait()
"""


@on_sqlite
@pytest.mark.parametrize(
    ("at_its_end", "number"),
    [(True, signal.SIGTERM), (False, signal.SIGTERM), (False, signal.SIGINT)],
)
async def test_server_is_gone_in_time_whatever_hangs_in_it(
    settings: Settings, tmp_path: Path, at_its_end: bool, number: signal.Signals
) -> None:
    (tmp_path / "web.py").write_text(HANGING.format(at_its_end=at_its_end))
    port, log = free_port(), tmp_path / "server.log"
    env = environment(settings)
    env["PYTHONPATH"] += f":{tmp_path}"
    command = [*LIVEJOBS, "--web", "web:app", "--port", str(port)]
    with child(command, log, env) as process:
        server = ServerProcess(settings, port, process)
        await is_up(server)
        async with server.client() as client:
            asking = asyncio.create_task(client.get("/hang"))
            await asyncio.wait([asking], timeout=0.5)
            server.ask(number)
            await server.has_ended()
            asking.cancel()
            await asyncio.wait([asking])
        if at_its_end:
            assert server.exit_code == 70
            assert "the server does not end within 1 s and is ended" in log.read_text()
