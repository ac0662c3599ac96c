"""Several server processes on one port, started and replaced by this one, which serves nothing.

Each has a socket of its own on the same port, where the kernel can spread connections over them
(Linux): so they come evenly, also where a process has much to do. The sockets belong to this
process: connections that wait for a process that has died are served by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from uvicorn.config import STARTUP_FAILURE

from .members import Member
from .serving import BACKLOG, GONE_SECONDS, Serving

STEADY_SECONDS: Final = 10.0
"""A process that lived so long is replaced at once."""
PAUSES: Final = (0.1, 5.0)
"""First and longest pause before one that did not is replaced, in seconds."""
MARGIN_SECONDS: Final = 5.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("livejobs.server")


def serve_group(serving: Serving, count: int, linger: float, command: Sequence[str]) -> int:
    """Run so many server processes until a signal comes; returns the exit code.

    Args:
        linger: How long each may serve its viewers on, once it is to end, in seconds.
        command: Starts one of them, with its `Member` as a further argument.
    """
    try:
        listeners = listen(serving.host, serving.port, count)
    except OSError as error:
        logger.error("cannot listen on %s port %d: %s", serving.host, serving.port, error)
        return STARTUP_FAILURE
    folder = tempfile.mkdtemp(prefix="livejobs-")
    try:
        return asyncio.run(_Group(listeners, count, folder, linger, command).run())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """A socket for each of so many processes; where they cannot share a port, one for all.

    Raises:
        OSError: The address is taken, or cannot be had.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    shared = sys.platform == "linux"
    if shared:
        # Another program that shares its port would not be noticed.
        with _bound(family, address) as probe:
            address = (address[0], probe.getsockname()[1], *address[2:])
    sockets = []
    for _ in range(count if shared else 1):
        listener = _bound(family, address, shared=shared)
        listener.listen(BACKLOG)
        sockets.append(listener)
    return sockets


def _bound(
    family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool = False
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class _Group:
    """The processes, and whoever tells them to stop."""

    def __init__(
        self,
        listeners: list[socket.socket],
        count: int,
        folder: str,
        linger: float,
        command: Sequence[str],
    ) -> None:
        self._listeners = listeners
        self._count = count
        self._folder = folder
        self._stop_seconds = linger + GONE_SECONDS + MARGIN_SECONDS
        self._command = command
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code = 0
        # Its other end is only here: it closes when this process is gone.
        self._alive, self._life = os.pipe()

    async def run(self) -> int:
        """Run them until a signal comes; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop)
        host, port = self._listeners[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        logger.info("%d server processes listen on http://%s:%d", self._count, shown, port)
        keeping = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        await self._stopping.wait()
        _, hanging = await asyncio.wait(keeping, timeout=self._stop_seconds)
        if hanging:
            logger.error("%d server processes do not end and are killed", len(hanging))
            self._send(signal.SIGKILL)
            await asyncio.wait(keeping)
        for task in keeping:
            task.result()
        return self._code

    def _stop(self) -> None:
        """The first signal asks all to end, another one hastens them, and a third kills."""
        self._signals += 1
        if self._signals == 1:
            self._begin_end()
        else:
            self._send(signal.SIGTERM if self._signals == 2 else signal.SIGKILL)

    def _begin_end(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        # Those who come now shall find nobody, rather than wait for one who does not answer.
        for listener in self._listeners:
            listener.close()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        """Have one process run, and another one when it has ended."""
        starts = failures = 0
        while not self._stopping.is_set():
            began, starts = time.monotonic(), starts + 1
            process = self._running[number] = await self._start(number)
            if self._stopping.is_set():
                # It was not there yet when the others were told.
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            del self._running[number]
            if self._stopping.is_set():
                return
            if code == STARTUP_FAILURE and starts == 1:
                # It would fail in the same way again.
                logger.error("server process %d cannot start, so none does", number)
                self._code = STARTUP_FAILURE
                self._begin_end()
                return
            failures = 0 if time.monotonic() - began >= STEADY_SECONDS else failures + 1
            logger.error("server process %d (%d) ended: %d", number, process.pid, code)
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        first, longest = PAUSES
        pause = min(longest, first * 2.0 ** min(failures, 16))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        listener = self._listeners[(number - 1) % len(self._listeners)]
        member = Member(number, self._count, listener.fileno(), self._alive, self._folder)
        return await asyncio.create_subprocess_exec(
            *self._command,
            member.to_text(),
            stdin=subprocess.DEVNULL,
            pass_fds=(listener.fileno(), self._alive),
            # A terminal's Ctrl-C is for this process, which tells them.
            process_group=0,
        )
