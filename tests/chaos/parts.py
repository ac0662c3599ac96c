"""The processes that are killed, frozen and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from ..support.servers import PostgresProcess

STOP_SECONDS: Final = 20.0
"""A part that was asked to end and has not after this time is killed."""
LOOK_SECONDS: Final = 0.2
START_AGAIN_SECONDS: Final = 1.0
"""After which a part is started again that has ended by itself."""


class Part(Protocol):
    """What can be broken.

    Attributes:
        gave_up: How often it ended by itself and was started again.
    """

    gave_up: int

    async def start(self) -> None:
        """Start it; returns before it serves."""

    async def stop(self) -> None:
        """Ask it to end, and wait for it."""

    async def kill(self) -> None:
        """End it at once."""

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""

    def thaw(self) -> None:
        """Let it go on."""

    async def close(self) -> None:
        """End it whatever its state, and remove what it leaves."""


class Process:
    """A part in a process group of its own, started again where it ends by itself.

    Args:
        command: What to run.
        environment: Added to this process's own.
        log: Where its output goes.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.gave_up = 0
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._is_closed = False
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id, which is that of its group."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    async def start(self) -> None:
        """Start it; returns before it serves."""
        self._spawn()
        self._wanted = True
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Ask it to end, and wait for it."""
        self._wanted = False
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """End its whole group at once."""
        self._wanted = False
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def freeze(self) -> None:
        """Let its whole group stand still."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill_child(self, number: int) -> bool:
        """End one of its own child processes at once; False: it has none."""
        children = children_of(self.pid)
        if not children:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(children[number % len(children)], signal.SIGKILL)
        return True

    async def close(self) -> None:
        """End it whatever its state; nobody can start it any more."""
        self._is_closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self.kill()

    def _spawn(self) -> None:
        if self._is_closed:
            return
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _supervise(self) -> None:
        """What systemd or a container's restart policy does in production."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            assert self._process is not None
            if not self._wanted or self._process.poll() is None:
                continue
            self._signal(signal.SIGKILL)  # children that it has left behind
            await asyncio.sleep(START_AGAIN_SECONDS)
            if self._wanted:
                self.gave_up += 1
                self._spawn()


class PostgresPart:
    """A PostgreSQL with all its processes."""

    def __init__(self) -> None:
        self.gave_up = 0
        self._server = PostgresProcess()
        # A start that nobody waits for any more goes on in its thread; the end has to wait for it.
        self._turn = threading.Lock()

    @property
    def url(self) -> str:
        """The URL of its database ``postgres``."""
        return self._server.url

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        await asyncio.to_thread(self._in_turn, self._server.start)

    async def stop(self) -> None:
        """End it, breaking off what its clients do."""
        await asyncio.to_thread(self._in_turn, self._server.stop)

    async def kill(self) -> None:
        """End all its processes at once, as a crash of the machine would."""
        await asyncio.to_thread(self._in_turn, self._server.crash)

    def freeze(self) -> None:
        """Let all its processes stand still."""
        self._server.freeze()

    def thaw(self) -> None:
        """Let them go on."""
        self._server.thaw()

    async def close(self) -> None:
        """End it and remove its folder."""
        self.thaw()
        await asyncio.to_thread(self._in_turn, self._server.close)

    def _in_turn(self, act: Callable[[], None]) -> None:
        with self._turn:
            act()


def children_of(pid: int) -> list[int]:
    """The ids of the direct children of a process."""
    found: list[int] = []
    for folder in Path(f"/proc/{pid}/task").iterdir() if Path(f"/proc/{pid}").exists() else ():
        with contextlib.suppress(OSError):
            found += map(int, (folder / "children").read_text("ascii").split())
    return sorted(found)
