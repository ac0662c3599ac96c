"""A real mail server, aiosmtpd, whose answers a test decides."""

from __future__ import annotations

import asyncio
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from .servers import free_port

USER, PASSWORD = "ada", "p@ss/word"
CUT = "cut"


class MailServer:
    """Takes mails, unless it was told otherwise.

    Attributes:
        port: Where it listens on loopback.
        taken: The envelopes of mails that it has taken.
        answers: What it says to a recipient or to the content of a mail to them, by ``RCPT`` or
            ``DATA`` and the address; `CUT` breaks the connection instead. A list is used up.
        connections: How many there were.
        encrypted: Whether each mail came over TLS.
    """

    def __init__(self, tls: Path | None = None, *, starttls: bool = False, auth: bool = False):
        self.port = free_port()
        self.taken: list[Envelope] = []
        self.answers: dict[tuple[str, str], list[str]] = {}
        self.take_then_cut: set[str] = set()
        self.connections = 0
        self.encrypted: list[bool] = []
        context = None if tls is None else _context(tls)
        options: dict[str, Any] = {}
        if starttls:
            options |= {"tls_context": context, "require_starttls": True}
        if auth:
            options |= {"authenticator": _sign_in, "auth_required": True}
            options |= {"auth_require_tls": starttls}
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            ssl_context=None if starttls else context,
            **options,
        )

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def mails(self) -> list[EmailMessage]:
        """The mails that it has taken."""
        contents = (cast("bytes", envelope.content) for envelope in self.taken)
        return [message_from_bytes(content, policy=default) for content in contents]

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Count it."""
        self.connections += session.ssl is None or not responses_offer_tls(responses)
        session.host_name = hostname
        return responses

    async def handle_RCPT(
        self, server: SMTP, _: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        answer = self._answer(server, "RCPT", address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, _: Session, envelope: Envelope) -> str:
        """Take a mail, or not."""
        answer = self._answer(server, "DATA", envelope.rcpt_tos[0])
        if answer.startswith("250") or envelope.rcpt_tos[0] in self.take_then_cut:
            self.taken.append(envelope)
            transport = cast("asyncio.Transport", server.transport)
            self.encrypted.append(transport.get_extra_info("ssl_object") is not None)
        return answer

    def _answer(self, server: SMTP, when: str, address: str) -> str:
        given = self.answers.get((when, address))
        answer = given.pop(0) if given else "250 OK"
        if answer == CUT:
            cast("asyncio.Transport", server.transport).abort()
        return answer


def responses_offer_tls(responses: list[str]) -> bool:
    """Whether an EHLO is answered with STARTTLS, so that another EHLO is to come."""
    return any("STARTTLS" in response for response in responses)


def _sign_in(
    _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
) -> AuthResult:
    wanted = LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=data == wanted, handled=False)


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
