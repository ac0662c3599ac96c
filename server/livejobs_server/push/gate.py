"""Who is let in: so many connections for each address and each owner, and none without a file.

An address is that of the connection's other end, or what a trusted proxy says of it (uvicorn's
``forwarded-allow-ips``). Each process counts its own connections.
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Hashable
from typing import Final, NamedTuple

from starlette.requests import HTTPConnection

from livejobs.settings import Settings

from .open_files import OpenFiles, open_files

RETRY_SECONDS: Final = (5, 30)
"""When somebody with too many connections may try again: anywhere between, in whole seconds."""
FULL_RETRY_SECONDS: Final = (2, 10)
"""The same where the process has no room."""
IPV6_NETWORK: Final = 64
"""Bits of an address in version 6 that tell one client from another: the rest is its own choice."""

ADDRESS: Final = "address"
OWNER: Final = "owner"
FILES: Final = "files"
"""Why a connection is refused."""


class Refused(Exception):
    """A connection is not let in.

    Attributes:
        why: `ADDRESS`, `OWNER` or `FILES`.
        retry_after: When it may try again, in seconds.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        self.retry_after = random.randint(*(FULL_RETRY_SECONDS if why == FILES else RETRY_SECONDS))
        super().__init__(f"{_WORDS[why]}; come back in {self.retry_after} s")

    @property
    def code(self) -> str:
        """The problem's code."""
        return "server_full" if self.why == FILES else "too_many_connections"


_WORDS: Final = {
    ADDRESS: "too many connections from this address",
    OWNER: "too many connections with these credentials",
    FILES: "the server has no room",
}


class _Inside(NamedTuple):
    """What a connection counts for; "" for nothing."""

    address: str
    owner: str


class Gate:
    """Lets connections in, and counts those that are.

    Args:
        settings: The limits.
        files: Those of the process.

    Attributes:
        refused: Connections that were not let in, in all, by reason.
    """

    def __init__(self, settings: Settings, files: OpenFiles = open_files) -> None:
        self.refused: Counter[str] = Counter({ADDRESS: 0, OWNER: 0, FILES: 0})
        self._each_address = settings.max_address_connections
        self._each_owner = settings.max_owner_connections
        self._files = files
        # Only those that count for something: without limits nothing is kept of anybody.
        self._inside: dict[Hashable, _Inside] = {}
        self._by_address: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()

    def enter(self, who: Hashable, connection: HTTPConnection, owner: str = "") -> None:
        """Let somebody in, until `leave`.

        Args:
            who: Stands for the connection, later on.
            connection: What came in.
            owner: Whose credentials it has; "": that is not known yet, see `recognise`.

        Raises:
            Refused: It is not let in.
        """
        if self._files.are_scarce():
            raise self._refuse(FILES)
        address = client_address(connection) if self._each_address else ""
        if address and self._by_address[address] >= self._each_address:
            raise self._refuse(ADDRESS)
        if self._each_owner and owner:
            self._check_owner(owner)
        else:
            owner = ""
        if address or owner:
            self._count(who, _Inside(address, owner))

    def recognise(self, who: Hashable, owner: str) -> None:
        """The owner of somebody inside is known now.

        Raises:
            Refused: Of that owner there are enough.
        """
        if not self._each_owner:
            return
        self._check_owner(owner)
        known = self._inside.get(who, _Inside("", ""))
        self.leave(who)
        self._count(who, known._replace(owner=owner))

    def move(self, who: Hashable, to: Hashable) -> None:
        """Another one stands for a connection from now on."""
        known = self._inside.pop(who, None)
        if known is not None:
            self._inside[to] = known

    def leave(self, who: Hashable) -> None:
        """Somebody has left; nothing happens if they are not inside."""
        if not self._inside:
            return
        known = self._inside.pop(who, None)
        if known is not None:
            _less(self._by_address, known.address)
            _less(self._by_owner, known.owner)

    def _check_owner(self, owner: str) -> None:
        if self._by_owner[owner] >= self._each_owner:
            raise self._refuse(OWNER)

    def _count(self, who: Hashable, inside: _Inside) -> None:
        self._inside[who] = inside
        if inside.address:
            self._by_address[inside.address] += 1
        if inside.owner:
            self._by_owner[inside.owner] += 1

    def _refuse(self, why: str) -> Refused:
        self.refused[why] += 1
        return Refused(why)


def _less(counter: Counter[str], key: str) -> None:
    if key:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]


def client_address(connection: HTTPConnection) -> str:
    """The address that a connection counts for; "" where it has none, as over a Unix socket."""
    if connection.client is None:
        return ""
    host = connection.client.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
    return host
