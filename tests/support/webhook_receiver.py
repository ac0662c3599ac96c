"""A real HTTP server that takes webhooks, or answers as a test decides."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

from standardwebhooks import Webhook

SECRET: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OLD_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK: Final = (ip_network("127.0.0.0/8"),)
ENDLESS: Final = 64 * 1024 * 1024
"""Bytes of an answer that nobody should read to its end."""


class Taken(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The webhook's id."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """What it says, after its signature has been verified by the library of the standard."""
        found: dict[str, Any] = Webhook(SECRET).verify(self.body, self.headers)
        return found


class Receiver:
    """Answers 204, unless a plan for the path says otherwise.

    Attributes:
        port: Where it listens on loopback.
        url: Its address, without a path.
        taken: All requests, in the order they came.
        sent: Bytes of the last huge answer that could be written.
    """

    def __init__(self, tls: Path | None = None) -> None:
        self.taken: list[Taken] = []
        self.plans: dict[str, deque[tuple[Any, ...]]] = {}
        self.sent = 0
        self.ended = threading.Event()
        self.lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            receiver = owner

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self.port}"

    def plan(self, path: str, *answers: tuple[Any, ...]) -> str:
        """What a path answers, one after the other, before it takes what comes; its URL.

        Args:
            *answers: ``(429, {"Retry-After": "1"})``, a status and headers; ``("slow",)``, one that
                says nothing; ``("drip",)``, one whose head does not end; ``("cut",)``, one that
                breaks off; ``("huge",)``, 200 with a body that does not end.
        """
        self.plans[path] = deque(answers)
        return self.url + path

    def of(self, path: str) -> list[Taken]:
        """The requests to a path."""
        with self.lock:
            return [each for each in self.taken if each.path == path]


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Only who follows a redirect comes here."""
        self.do_POST()

    def do_POST(self) -> None:
        """Take a webhook."""
        receiver = self.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with receiver.lock:
            receiver.taken.append(Taken(self.path, headers, body))
            plan = receiver.plans.get(self.path)
            answer = plan.popleft() if plan else (204,)
        self.close_connection = True
        try:
            if isinstance(answer[0], int):
                self._say(*answer)
            else:
                getattr(self, f"_{answer[0]}")()
        except OSError:
            receiver.ended.set()  # whoever asked has left

    def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _slow(self) -> None:
        self.receiver.ended.wait(60)

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.receiver.ended.wait(0.05):
            self.wfile.write(b"x")

    def _cut(self) -> None:
        linger = struct.pack("ii", 1, 0)  # so that the other end meets a reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _huge(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(ENDLESS))
        self.end_headers()
        while self.receiver.sent < ENDLESS:
            self.receiver.sent += self.wfile.write(b"x" * 65536)


@contextmanager
def webhook_receiver(tls: Path | None = None) -> Iterator[Receiver]:
    """Run one on a free port."""
    receiver = Receiver(tls)
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join(timeout=5)


def body_of(event: dict[str, Any]) -> bytes:
    """An event as it is sent."""
    return json.dumps(event).encode()
