"""What a WebSocket client asks, and how it is answered; sending and receiving is `websocket`'s."""

from __future__ import annotations

import logging
from typing import Final

from starlette.requests import HTTPConnection

from livejobs.errors import LivejobsError
from livejobs.views import (
    AuthenticatedMessage,
    AuthOp,
    ClientOp,
    PingOp,
    PongMessage,
    SubscribeOp,
    UnsubscribedMessage,
)

from ..auth import Access
from ..snapshots import can_exist
from ..viewer import Viewer
from .allowance import Allowance
from .closes import BUSY, LATER, NO_CREDENTIALS, Close, Closing
from .gate import Refused
from .ops import NotAMessage, Request, read_request
from .subscriptions import (
    INVALID_REQUEST,
    Refusal,
    Wanted,
    WantedFeed,
    cursor_of,
    entries_of,
    since_of,
)
from .watcher import Watcher
from .wire import Frame, missing_frame

OPS_AT_ONCE: Final = 5000
"""Requests that one connection may send at once …"""
OPS_PER_SECOND: Final = 200.0
"""… and how fast that allowance grows again."""

UNAUTHENTICATED: Final = "unauthenticated"
OTHER_OWNER: Final = "other_owner"
UNAVAILABLE: Final = "unavailable"

logger = logging.getLogger("livejobs.websocket")


class Dialogue:
    """The requests of one client, in their order.

    Args:
        connection: What watches on the client's behalf.
        access: Who may see what.
        max_bytes: Longest message that is read.
    """

    __slots__ = ("_access", "_allowance", "_connection", "_max_bytes")

    def __init__(self, connection: Watcher, access: Access, max_bytes: int) -> None:
        self._connection = connection
        self._access = access
        self._max_bytes = max_bytes
        self._allowance: Allowance | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the client may ask for as much as one that has asked for nothing yet."""
        return self._allowance is None or self._allowance.is_full

    async def greet(self, handshake: HTTPConnection) -> None:
        """Look at the credentials of the handshake; without any, an `auth` has to follow.

        Raises:
            Closing: They are not valid, or cannot be checked.
        """
        try:
            viewer = await self._access.authenticate(handshake)
        except LivejobsError as error:
            logger.warning("the credentials of a WebSocket cannot be checked: %s", error)
            raise Closing(LATER) from None
        if viewer is not None:
            await self._begin(viewer, handshake)
        elif self._access.has_credentials(handshake):
            raise Closing(NO_CREDENTIALS)

    async def hear(self, text: str | None, handshake: HTTPConnection | None) -> None:
        """Serve one message of the client.

        Args:
            text: The message; None: it was binary.
            handshake: The request that opened the connection; not needed once the viewer is known.

        Raises:
            Closing: It ends the connection.
        """
        if self._allowance is None:
            self._allowance = Allowance(OPS_AT_ONCE, OPS_PER_SECOND)
        if not self._allowance.take():
            raise Closing(BUSY)
        try:
            request = read_request(text, self._max_bytes)
        except NotAMessage as error:
            raise Closing(Close(4400, str(error))) from None
        await self._serve(request, handshake)

    async def _begin(self, viewer: Viewer, handshake: HTTPConnection | None) -> None:
        """The client is known now; on a job's own URL it is subscribed."""
        try:
            self._connection.recognise(viewer)
        except Refused as refused:
            raise Closing(Close(BUSY.code, str(refused))) from None
        self._connection.become(viewer)
        job_id = self._connection.job_id
        if job_id is None:
            return
        if not can_exist(job_id):
            await self._connection.put(missing_frame(job_id))
        else:
            assert handshake is not None
            fields = {"op": "subscribe", "job_id": job_id}
            query = handshake.query_params
            fields |= {name: query[name] for name in ("after", "entries") if name in query}
            await self._serve(Request(fields), handshake)

    async def _serve(self, request: Request, handshake: HTTPConnection | None) -> None:
        try:
            answer = await self._answer(request.op(), handshake)
        except Refusal as refusal:
            answer = refusal.frame(request.job_id, request.feed, request.ref)
        if answer is not None:
            await self._connection.put(answer)

    async def _answer(self, op: ClientOp, handshake: HTTPConnection | None) -> Frame | None:
        """Do what is asked; returns the answer, None where the hub gives it.

        Raises:
            Refusal: It cannot be done.
        """
        if isinstance(op, AuthOp):
            return await self._authenticate(op, handshake)
        if self._connection.viewer is None:
            raise Closing(NO_CREDENTIALS)
        if isinstance(op, PingOp):
            return _frame(PongMessage(ref=op.ref))
        if self._connection.job_id not in (None, op.job_id):
            raise Refusal(
                INVALID_REQUEST, "This connection is for one job only: watch others over /v1/ws."
            )
        if isinstance(op, SubscribeOp):
            return self._connection.subscribe(_wanted(op))
        if op.feed is not None:
            self._connection.unfollow(op.feed)
        if op.job_id is not None:
            self._connection.unwatch(op.job_id)
        return _frame(UnsubscribedMessage(job_id=op.job_id, feed=op.feed, ref=op.ref))

    async def _authenticate(self, op: AuthOp, handshake: HTTPConnection | None) -> Frame:
        known = self._connection.viewer
        try:
            viewer = await self._access.authenticate_token(op.token)
        except LivejobsError as error:
            logger.warning("the credentials of a WebSocket cannot be checked: %s", error)
            if known is None:
                raise Closing(LATER) from None
            raise Refusal(UNAVAILABLE, "The credentials cannot be checked now.") from None
        if known is not None:
            await self._renew(known, viewer)
        elif viewer is not None:
            await self._begin(viewer, handshake)
        else:
            raise Closing(NO_CREDENTIALS)
        return _frame(AuthenticatedMessage(ref=op.ref))

    async def _renew(self, known: Viewer, viewer: Viewer | None) -> None:
        """Replace the credentials by fresh ones of the same owner."""
        if viewer is None:
            raise Refusal(
                UNAUTHENTICATED, "The token is not valid; the connection keeps what it has."
            )
        if viewer.owner != known.owner:
            raise Refusal(
                OTHER_OWNER, "The token is another owner's: open another connection for it."
            )
        for frame in self._connection.become(viewer):
            await self._connection.put(frame)


def _wanted(op: SubscribeOp) -> Wanted | WantedFeed:
    if op.feed is not None:
        return WantedFeed(op.feed, since_of(op.since), ref=op.ref)
    assert op.job_id is not None
    return Wanted(op.job_id, cursor_of(op.after), entries_of(op.entries), ref=op.ref)


def _frame(message: AuthenticatedMessage | PongMessage | UnsubscribedMessage) -> Frame:
    return Frame(message.type, "", message.model_dump_json().encode())
