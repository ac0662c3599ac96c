"""A real uvicorn server as a child process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from livejobs.settings import Settings

from .launching import Process
from .servers import child, free_port
from .waiting import wait_until
from .worker import environment


class HttpServer:
    """A server that can be killed and started again on the same port.

    Attributes:
        port: Where it listens on loopback.
        url: Its address.
    """

    def __init__(
        self,
        settings: Settings,
        log: Path,
        app: str = "livejobs_server.app:app",
        env: dict[str, str] | None = None,
        *,
        health: str = "/healthz",
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._health = health
        self._environment = environment(settings) | (env or {})
        self._command = [
            *(sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1"),
            # As `livejobs server` runs it.
            *("--http", "livejobs_server.push.takeover:HttpProtocol"),
            *("--ws", "livejobs_server.push.takeover:WebSocketProtocol"),
            *("--port", str(self.port), "--no-access-log"),
        ]
        self._running = contextlib.ExitStack()
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers at `health`."""
        made = child(self._command, self._log, self._environment)
        self._process = self._running.enter_context(made)
        wait_until(self._answers, description="the server answers", seconds=40)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._running.close()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.stop()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(self._log.read_text())
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}{self._health}").status_code == 200
        return False


@contextlib.contextmanager
def http_server(
    settings: Settings,
    log: Path,
    app: str = "livejobs_server.app:app",
    env: dict[str, str] | None = None,
    *,
    health: str = "/healthz",
) -> Iterator[str]:
    """Run an ASGI app; yields its base URL once it answers at `health`."""
    server = HttpServer(settings, log, app, env, health=health)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()
