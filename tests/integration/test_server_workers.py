"""`livejobs server --workers`: real processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livejobs.settings import Settings

from ..support.launching import Process
from ..support.led_jobs import MakeJob
from ..support.live_server import RemoteServer, closed, on_sqlite, receive_until, subscribe
from ..support.servers import child, free_port
from ..support.waiting import wait_until, wait_until_async
from ..support.worker import environment

pytest_plugins = ["tests.support.live_stack"]

WORKERS = 3
COMMAND = (sys.executable, "-m", "livejobs_server.cli", "server", "--host", "127.0.0.1")


class Group(RemoteServer):
    """Several server processes and the one that started them."""

    def __init__(self, settings: Settings, port: int, process: Process, log: Path) -> None:
        super().__init__(settings, port)
        self.process = process
        self.log = log

    @property
    def members(self) -> list[int]:
        """The process ids of those that serve."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(each) for each in text.split()]

    def listens(self) -> bool:
        """Whether each of them answers."""
        started = self.log.read_text().count("Application startup complete")
        return started >= WORKERS and _answers(self.port)


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    return False


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def holder_of(group: Group, port: int) -> int | None:
    """Which member has the connection that comes from a port."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[at].partition(":")[2], 16) for at in (1, 2))
        if (local, remote) == (group.port, port):
            inode = f"socket:[{fields[9]}]"
    for pid in group.members:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}") == inode:
                    return pid
    return None


@pytest.fixture
def group(settings: Settings, tmp_path: Path) -> Iterator[Group]:
    """Three server processes."""
    port, log = free_port(), tmp_path / "server.log"
    command = [*COMMAND, "--port", str(port), "--workers", str(WORKERS)]
    env = environment(settings) | {"LIVEJOBS_DRAIN_SPREAD": "2"}
    with child(command, log, env) as process:
        started = Group(settings, port, process, log)
        wait_until(started.listens, description="all answer", seconds=40)
        yield started
        members = started.members if process.poll() is None else []
    sys.stdout.write(log.read_text())
    wait_until(
        lambda: not any(map(_is_alive, members)), description="none of them is left", seconds=20
    )


@on_sqlite
async def test_viewers_come_to_all_processes_and_a_signal_sends_all_of_them_away(
    group: Group, make_job: MakeJob
) -> None:
    job = await make_job()
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(group.socket()) for _ in range(60)]
        for socket in sockets:
            await subscribe(socket, job.id)
        ports = [socket.local_address[1] for socket in sockets]
        holders = {holder_of(group, port) for port in ports}
        assert holders == set(group.members)
        await job.claim()
        for socket in sockets:
            assert (await receive_until(socket, "job"))[-1]["job"]["status"] == "processing"
        members = group.members
        group.process.send_signal(signal.SIGTERM)
        delays = [
            (await receive_until(socket, "drain"))[-1]["reconnect_after_ms"] for socket in sockets
        ]
        assert {(await closed(socket))[0] for socket in sockets} == {1012}
    assert max(delays) <= 2000
    assert len(set(delays)) > 40
    await wait_until_async(lambda: group.process.poll() is not None, description="it ends")
    assert group.process.poll() == 0
    assert not any(map(_is_alive, members))


@on_sqlite
async def test_process_that_was_killed_is_replaced_and_the_others_go_on(
    group: Group, make_job: MakeJob
) -> None:
    job = await make_job()
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(group.socket()) for _ in range(20)]
        for socket in sockets:
            await subscribe(socket, job.id)
        killed = group.members[0]
        kept = [socket for socket in sockets if holder_of(group, socket.local_address[1]) != killed]
        assert 0 < len(kept) < len(sockets)
        os.kill(killed, signal.SIGKILL)
        await job.claim()
        for socket in kept:
            assert (await receive_until(socket, "job"))[-1]["job"]["status"] == "processing"
        await wait_until_async(
            lambda: len(group.members) == WORKERS and killed not in group.members,
            description="another one runs",
        )

        # Also those that came while it was missing are served, by it.
        async def ask() -> int:
            async with group.client() as client:
                return (await client.get(f"/v1/jobs/{job.id}")).status_code

        assert set(await asyncio.gather(*(ask() for _ in range(30)))) == {200}
    text = group.log.read_text()
    assert f"({killed}) ended: -9" in text


@on_sqlite
async def test_processes_end_with_the_one_that_started_them(
    group: Group, make_job: MakeJob
) -> None:
    job = await make_job()
    async with group.socket() as socket:
        await subscribe(socket, job.id)
        members = group.members
        group.process.kill()
        await receive_until(socket, "drain")
    await wait_until_async(
        lambda: not any(map(_is_alive, members)), description="all have ended", seconds=20
    )


@on_sqlite
async def test_process_that_hangs_is_killed_in_the_end(settings: Settings, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "server.log"
    (tmp_path / "brief.py").write_text(
        "import livejobs_server.group as group\n"
        "group.GONE_SECONDS = group.MARGIN_SECONDS = 0.5\n"
        "from livejobs_server.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, str(tmp_path / "brief.py"), *COMMAND[3:]]
    command += ["--port", str(port), "--workers", str(WORKERS)]
    with child(command, log, environment(settings)) as process:
        hanging = Group(settings, port, process, log)
        wait_until(hanging.listens, description="all answer", seconds=40)
        members = hanging.members
        os.kill(members[0], signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        await wait_until_async(lambda: process.poll() is not None, description="it ends")
        assert not any(map(_is_alive, members))
    assert "1 server processes do not end" in log.read_text()


@on_sqlite
def test_port_that_is_taken_ends_the_command(group: Group, settings: Settings) -> None:
    command = [*COMMAND, "--port", str(group.port), "--workers", "2"]
    env = os.environ | environment(settings)
    again = subprocess.run(command, env=env, capture_output=True, timeout=40, check=False)
    assert again.returncode == 3
    assert b"cannot listen on 127.0.0.1" in again.stdout + again.stderr


@on_sqlite
def test_app_that_cannot_start_ends_all(settings: Settings, tmp_path: Path) -> None:
    empty = {"DATABASE_URL": f"sqlite:///{tmp_path / 'empty.db'}"}
    command = [*COMMAND, "--port", str(free_port()), "--workers", "2"]
    env = os.environ | environment(settings) | empty
    run = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    assert run.returncode == 3
    assert b"livejobs migrate" in run.stdout + run.stderr
