"""How a pub/sub connection hears, and how it notices that nobody is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from livejobs_server.push import line
from livejobs_server.push.line import Heard, Line, connection_options


class Trusted(Exception):
    """A hundred pings were sent, and the connection is still trusted."""


class Connection(asyncio.Transport):
    """In place of redis-py's and of its transport: every ping may bring some bytes."""

    replies_to_ping = b""

    def __init__(self) -> None:
        super().__init__()
        self.line: Line
        self.pings = 0

    # -- redis-py's side --------------------------------------------------------------------------

    @property
    def _writer(self) -> Connection:
        return self

    @property
    def transport(self) -> Connection:
        return self

    async def connect(self) -> None:
        pass

    async def disconnect(self, nowait: bool) -> None:
        assert nowait

    def pack_commands(self, commands: object) -> object:
        return commands

    # -- the transport's side ---------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, Line)
        self.line = protocol

    def is_closing(self) -> bool:
        return False

    def writelines(self, commands: Any) -> None:
        assert commands == [("PING",)]
        self.pings += 1
        if self.pings == 100:
            raise Trusted
        self.line.data_received(self.replies_to_ping)


class Silent(Connection):
    def writelines(self, commands: Any) -> None:
        self.pings += 1


class Answering(Connection):
    replies_to_ping = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


class AnsweringPlainly(Connection):
    replies_to_ping = b"+PONG\r\n"


class Babbling(Connection):
    replies_to_ping = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nd\r\n"


async def opened(connection: Connection, heard: Heard = lambda kind, name, data: None) -> Line:
    options: dict[str, Any] = {"connection_class": lambda: connection}
    opening = Line(options, heard)
    await opening.open()
    return opening


@pytest.mark.parametrize(
    ("make", "pings"),
    [
        (Silent, line.PINGS_IN_SILENCE),
        (Babbling, line.PINGS_IN_ALL),
        (Answering, None),
        (AnsweringPlainly, None),
    ],
)
async def test_line_is_given_up_by_unanswered_pings(
    make: type[Connection], pings: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "PING_SECONDS", 0)
    connection = make()
    watched = await opened(connection)
    with pytest.raises(Trusted if pings is None else RedisConnectionError):
        await watched.watch()
    await watched.close()
    assert connection.pings == (100 if pings is None else pings)


async def test_line_hears_what_comes_in_pieces() -> None:
    heard = []
    hearing = await opened(Connection(), lambda *what: heard.append(what))
    data = Babbling.replies_to_ping + b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"
    for start in range(0, len(data), 7):
        hearing.data_received(data[start : start + 7])
    assert heard == [("message", b"c", b"d"), ("subscribe", b"ch", 1)]
    await hearing.close()


def fail(kind: str, name: bytes, data: bytes) -> None:
    raise RedisConnectionError("a channel has moved to another node")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"-MOVED 1 127.0.0.1:7\r\n", ResponseError),
        (b"?\r\n", RedisConnectionError),
        (Babbling.replies_to_ping, RedisConnectionError),
    ],
)
async def test_line_ends_by_what_it_cannot_use(data: bytes, error: type[Exception]) -> None:
    ending = await opened(Connection(), fail)
    ending.data_received(data)
    with pytest.raises(error):
        await ending.listen()
    await ending.close()


async def test_line_ends_with_its_connection() -> None:
    ending = await opened(Connection())
    ending.connection_lost(None)
    with pytest.raises(RedisConnectionError):
        await ending.listen()
    await ending.close()


def test_line_notices_silence_within_three_seconds() -> None:
    assert (line.PINGS_IN_SILENCE + 1) * line.PING_SECONDS < 3.0


def test_connection_options_keep_what_the_url_says_but_for_timeouts() -> None:
    options = connection_options("rediss://me:pw@h:7/3?socket_timeout=60&protocol=3")
    assert (options["host"], options["port"], options["db"]) == ("h", 7, 3)
    assert (options["username"], options["password"]) == ("me", "pw")
    assert options["connection_class"].__name__ == "SSLConnection"
    assert (options["socket_timeout"], options["protocol"]) == (line.TIMEOUT_SECONDS, 2)
