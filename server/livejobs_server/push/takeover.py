"""The one seam to uvicorn: an endpoint keeps the transport of its connection, and nothing else.

Give uvicorn these protocol classes, ``uvicorn --ws livejobs_server.push.takeover:WebSocketProtocol
--http livejobs_server.push.takeover:HttpProtocol``, and every request carries a function in its
scope that hands its transport to another asyncio protocol. The endpoint returns; what uvicorn made
for the connection (task, queue, scope, headers, parser) is then garbage. `livejobs server` does
that by itself. Under any other server `find_takeover` finds nothing, and the endpoints serve the
same over ASGI.

The classes rely on attributes of uvicorn's that are not public, so they check its version: with
one they do not know they behave as uvicorn's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from .open_files import open_files

KNOWN_VERSIONS: Final = ("0.54.",)
"""Releases of uvicorn whose insides this module was tried with."""
EXTENSION: Final = "livejobs.takeover"
"""Key of the function among the scope's extensions."""

REQUEST_SECONDS: Final = 10.0
"""A connection over which nothing is asked for so long is closed: it is an open file."""
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)

Scope = MutableMapping[str, Any]
Takeover = Callable[[asyncio.BaseProtocol], asyncio.Transport | None]
"""Hands the transport to a protocol and returns it; None: not possible, go on over ASGI."""

logger = logging.getLogger("livejobs.takeover")


def knows(version: str) -> bool:
    """Whether this module was tried with a version of uvicorn."""
    return version.startswith(KNOWN_VERSIONS)


def find_takeover(scope: Scope) -> Takeover | None:
    """The function that gives a request's transport away; None where the server has none."""
    found: Takeover | None = scope.get("extensions", {}).get(EXTENSION)
    return found


_offered: Final = knows(uvicorn.__version__)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which lets an endpoint have the transport once it accepted.

    It does not offer compression: a message goes to all viewers as the same bytes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn.available_extensions = []

    def handle_connect(self, event: Request) -> None:
        """The handshake has arrived."""
        super().handle_connect(event)
        if _offered and not self.close_sent:
            # The task that will read the scope has not begun.
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self._give_away

    def _give_away(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        transport = self.transport
        taken = self.disconnected or self.close_sent or transport.is_closing()
        if taken or not self.handshake_complete or not self.queue.empty():
            return None
        self.stop_keepalive()
        self.connections.discard(self)
        self.transport = _GONE
        # Cycles would keep all of it until the garbage collector comes by.
        self.scope["extensions"].clear()
        self.conn.parser.close()
        transport.set_protocol(protocol)
        return transport


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which lets an endpoint have the transport after the head is sent.

    The body has to be sent in chunks from then on, and ends with the connection.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection was accepted; it goes at once where the process can hardly open a file."""
        socket = transport.get_extra_info("socket")
        if socket is not None and open_files.turn_away(socket.fileno()):
            transport.set_protocol(asyncio.Protocol())
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(transport)
        # The first byte ends it, as that of the next request ends the one between requests.
        wait = self.loop.call_later(REQUEST_SECONDS, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = wait

    def handle_websocket_upgrade(self) -> None:
        """The request is the handshake of a WebSocket, whose protocol has the transport now."""
        super().handle_websocket_upgrade()
        # Cycles would keep this object until the garbage collector comes by.
        self.scope.get("extensions", {}).clear()
        self.parser = None  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if _offered:
            extensions: Any = {EXTENSION: self._give_away}
            self.scope["extensions"] = extensions

    def _give_away(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        cycle, transport = self.cycle, self.transport
        if cycle.disconnected or cycle.response_complete or transport.is_closing():
            return None
        # A middleware that holds the head back, or has set a length, has its reasons.
        if not cycle.response_started or not cycle.chunked_encoding or self.pipeline:
            return None
        if cycle.scope["method"] == "HEAD":
            return None
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.flow.resume_reading()
        cycle.disconnected = True  # Nothing more is expected of its application.
        cycle.message_event.set()
        cycle.transport = self.transport = _GONE
        self.scope["extensions"].clear()
        self.parser = None  # type: ignore[assignment]
        transport.set_protocol(protocol)
        return transport


class _Gone(asyncio.Transport):
    """What uvicorn's objects hold for the rest of their short lives."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """It has other hands now."""

    def write(self, data: Any) -> None:
        """Nobody hears it."""


_GONE: Final = _Gone()

if not _offered:
    logger.warning(
        "uvicorn %s is not known here (known: %s*): viewers are served over ASGI, which costs "
        "more; install the version that livejobs pins",
        uvicorn.__version__,
        "*, ".join(KNOWN_VERSIONS),
    )
