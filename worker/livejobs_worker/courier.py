"""Carries a POST to a server of somebody else's, and nowhere that it must not go.

The name is resolved once, each address is looked at, and that very address is connected to: a name
that means something else a moment later leads nowhere. TLS is checked against the name. Redirects
are not followed, proxies of the environment not used, and all of it together ends in time.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpcore

from livejobs.errors import WebhookError
from livejobs.patience import call_within
from livejobs.webhook_urls import Address, Network, may_reach, parse

TIMEOUT_SECONDS: Final = 15.0
"""From the look-up of the name to the end of the answer."""
MAX_ANSWER_BYTES: Final = 64 * 1024
"""So much of an answer is read, to let the receiver finish; none of it is kept."""

Resolve = Callable[[str, int], Sequence[str]]


class Answer(NamedTuple):
    """What a receiver said.

    Attributes:
        status: The HTTP status.
        retry_after: Its header Retry-After; empty: there was none.
    """

    status: int
    retry_after: str


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system finds them.

    Raises:
        OSError: It finds none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def carry(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    networks: Sequence[Network] = (),
    *,
    seconds: float = TIMEOUT_SECONDS,
    resolve: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """POST a body, once.

    Args:
        networks: Those that are not public and may be gone to all the same.
        seconds: That all of it may take.
        tls: In place of the usual authorities.

    Raises:
        WebhookError: There was no answer; `code` says why.
    """
    scheme, host, port, path = parse(url)
    network = _Network(networks, time.monotonic() + seconds, resolve)
    with httpcore.ConnectionPool(ssl_context=tls, network_backend=network) as pool:
        where = httpcore.URL(scheme=scheme, host=host, port=port, target=path)
        try:
            with pool.stream(
                "POST", where, headers=list(headers.items()), content=body
            ) as response:
                answer = Answer(response.status, _header(response.headers, b"retry-after"))
                _drain(response.iter_stream())
                return answer
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            said = str(error) or "the connection broke"
            late = isinstance(error, httpcore.TimeoutException)
            text = f"it took longer than {seconds:g} s" if late else said
            raise WebhookError("webhook_unreachable", f"{host} did not answer: {text}.") from error


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((v.decode("latin-1") for name, v in headers if name.lower() == wanted), "")


def _drain(pieces: Iterable[bytes]) -> None:
    """Read an answer up to its bound; it has been given, so that how it ends does not matter."""
    left = MAX_ANSWER_BYTES
    try:
        for piece in pieces:
            left -= len(piece)
            if left <= 0:
                return
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        return


class _Network(httpcore.NetworkBackend):
    """Connects to addresses that may be reached, until it is too late.

    Args:
        networks: As of `carry`.
        deadline: The moment of the monotonic clock.
        resolve: Finds the addresses of a name.
    """

    def __init__(self, networks: Sequence[Network], deadline: float, resolve: Resolve) -> None:
        self._networks = networks
        self._deadline = deadline
        self._resolve = resolve
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = [each for each in self._addresses(host, port) if self._may_reach(each)]
        if not addresses:
            raise WebhookError(
                "webhook_forbidden",
                f"{host} leads to this machine or into a private network, where no webhook goes: "
                "LIVEJOBS_WEBHOOK_NETWORKS names those that it may go to.",
            )
        for number, address in enumerate(addresses, start=1):
            try:
                stream = self._sockets.connect_tcp(str(address), port, self._left())
                return _Stream(stream, self._left)
            except httpcore.ConnectError:
                if number == len(addresses):
                    raise
        raise AssertionError("there was an address")

    def _addresses(self, host: str, port: int) -> list[Address]:
        # The system's resolver knows no time-out of ours.
        ask = functools.partial(self._resolve, host, port)
        try:
            return [ipaddress.ip_address(each) for each in call_within(self._left(), ask, "names")]
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError("its name is not known") from error

    def _may_reach(self, address: Address) -> bool:
        return may_reach(address, self._networks)

    def _left(self) -> float:
        """Seconds that are left.

        Raises:
            httpcore.ReadTimeout: None are.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left


class _Stream(httpcore.NetworkStream):
    """A connection of which every step gets the time that is left for all."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Not in pieces of the stream's own, each of which would have this time.
        connection = self._stream.get_extra_info("socket")
        connection.settimeout(self._left())
        try:
            connection.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError("the connection broke") from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left())
        return _Stream(stream, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
