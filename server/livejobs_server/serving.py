"""How an app is served by `livejobs server`: by uvicorn, with the options that streams need."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from livejobs.settings import Settings

from .members import Member, become

OWN_APP: Final = "livejobs_server.app:create_served_app"
BACKLOG: Final = 65_535
"""Connections that may wait to be taken, as far as the kernel lets them (`net.core.somaxconn`).
Those of a crowd that find no room try again a second later, or three, or seven."""
ANSWER_SECONDS: Final = 3
"""How long requests under way may take once the server is to end."""
GONE_SECONDS: Final = 20.0
"""After so long a server that was told to end does, whatever hangs in it."""
FORCED: Final = 70
"""Its exit code then."""

logger = logging.getLogger("livejobs.server")


@dataclass(frozen=True, slots=True)
class Serving:
    """What is to be served, and where.

    Attributes:
        host: Address to listen on.
        port: Its port; 0: any that is free.
        web: An app of the user's, as uvicorn takes it; None: livejobs' own.
    """

    host: str
    port: int
    web: str | None = None

    def config(self, settings: Settings) -> uvicorn.Config:
        """The options of uvicorn."""
        return uvicorn.Config(
            self.web or OWN_APP,
            factory=self.web is None,
            host=self.host,
            port=self.port,
            backlog=BACKLOG,
            http="livejobs_server.push.takeover:HttpProtocol",
            ws="livejobs_server.push.takeover:WebSocketProtocol",
            log_config=None,
            # A line for each request and poll would bury everything else.
            access_log=settings.log_level == "debug",
            # Viewers are told at once; this is for those that read nothing.
            timeout_graceful_shutdown=ANSWER_SECONDS,
            # It would compress each message anew for each viewer.
            ws_per_message_deflate=False,
            # More than is taken, so that the answer can say so; uvicorn's own limit is 16 MiB.
            ws_max_size=2 * settings.max_payload_bytes,
        )


COLLECTED_AFTER: Final = (10_000, 20, 5)
"""New objects until the garbage collector looks at them, rounds of that until at those that it has
seen once, and rounds of these until at all of them: a million objects later, or more."""


class _Server(uvicorn.Server):
    """uvicorn's server, which ends in time whatever hangs in it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        # What is there now stays: the garbage collector need not look at it again and again
        # while viewers come. Nor need it look at these so often: viewers that have gone leave no
        # cycles, and of a crowd that comes it looked at each member a dozen times.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED_AFTER)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """It is to stop; viewers have been sent away before."""
        if not self.should_exit:
            last = threading.Timer(GONE_SECONDS, _end_now)
            last.daemon = True
            last.start()
        super().handle_exit(sig, frame)


def _end_now() -> None:
    hanging = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
    logger.error(
        "the server does not end within %g s and is ended (threads: %s)",
        GONE_SECONDS,
        ", ".join(hanging),
    )
    logging.shutdown()
    os._exit(FORCED)


def serve(serving: Serving, settings: Settings, member: Member | None = None) -> int:
    """Serve in this process until it is told to stop.

    Args:
        member: Which process of a group this is; None: it is alone.

    Returns:
        The exit code; a signal that ends it is raised again at the end.
    """
    listeners = None
    if member is not None:
        become(member)
        member.stop_with_parent()
        listeners = [socket.socket(fileno=member.socket)]
    # As `uvicorn` does: the app may be a module of the folder it is started in.
    sys.path.insert(0, os.getcwd())
    server = _Server(serving.config(settings))
    try:
        server.run(listeners)
    except KeyboardInterrupt:
        # The signal that ended it, raised again.
        return 0
    return 0 if server.started else STARTUP_FAILURE
