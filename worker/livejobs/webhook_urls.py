"""Where a webhook may go: which URLs can be meant, and which addresses may be connected to."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARACTERS: Final = 2000
PORTS: Final = {"http": 80, "https": 443}
FIRST_FREE_PORT: Final = 1024
"""Below, only the ports of HTTP are gone to: others are mail servers and the like."""

# As narrow as it can be, so that no two readers of a URL can differ about its host.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<target>[/?][!-\"$-~]*)?"
)
_NOT_PUBLIC: Final[tuple[IPv4Network, ...]] = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
)
"""Private, loopback, link-local, carriers' and documentation's, multicast and reserved."""
_PUBLIC: Final = IPv6Network("2000::/3")
"""All that is handed out of IPv6 …"""
_NOT_PUBLIC_6: Final[tuple[IPv6Network, ...]] = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""… but for Teredo and the like, documentation's, and 6to4."""
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Target(NamedTuple):
    """The parts of a URL.

    Attributes:
        scheme: http or https.
        host: A name, or an address without brackets.
        port: The scheme's own, if the URL names none.
        target: Path and query.
    """

    scheme: str
    host: str
    port: int
    target: str


def parse(url: str) -> Target:
    """The parts of a URL to which a webhook can go.

    Raises:
        ValueError: None can; in words, without the URL.
    """
    found = _URL.fullmatch(url) if len(url) <= MAX_URL_CHARACTERS else None
    if found is None:
        raise ValueError(
            "it is no URL like https://example.com/hooks: http or https, a host in ASCII, no user "
            f"or password, no fragment, at most {MAX_URL_CHARACTERS} characters"
        )
    scheme, host = found["scheme"], found["host"].strip("[]")
    port = int(found["port"] or PORTS[scheme])
    if port not in PORTS.values() and not FIRST_FREE_PORT <= port <= 65535:
        raise ValueError(f"its port is to be 80, 443, or {FIRST_FREE_PORT} and more")
    target = found["target"] or "/"
    return Target(scheme, host, port, target if target.startswith("/") else f"/{target}")


def check(url: str, networks: Sequence[Network]) -> Target:
    """The parts of a URL that is not plainly out of reach; what its name means is seen later.

    Args:
        networks: Those that are not public and may be gone to all the same.

    Raises:
        ValueError: No webhook can go there; in words, without the URL.
    """
    target = parse(url)
    address = _written(target.host)
    if address is not None and not may_reach(address, networks):
        raise ValueError("it leads to this machine or into a private network")
    return target


def may_reach(address: Address, networks: Sequence[Network]) -> bool:
    """Whether an address is a public one, or in one of these networks."""
    inner = _inner(address)
    if any(each in network for each in (address, inner) for network in networks):
        return True
    if isinstance(inner, IPv4Address):
        return not any(inner in network for network in _NOT_PUBLIC)
    return inner in _PUBLIC and not any(inner in network for network in _NOT_PUBLIC_6)


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for; else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _written(host: str) -> Address | None:
    """The address that a host is written as; None: it is a name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(name))  # 127.1, 0x7f000001, 2130706433
    except (OSError, ValueError):
        return None
