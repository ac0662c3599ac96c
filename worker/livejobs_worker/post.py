"""Where mails are handed over: a mail server by SMTP, or a maildir while there is none."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from livejobs.mails import MailError, address, maildir
from livejobs.settings import Settings

TIMEOUT_SECONDS: Final = 60.0
"""Longest wait for an answer of a mail server."""
PORTS: Final = {"smtp": 587, "smtps": 465}
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""Hosts to which mails, and a password, may go in clear text."""
Reply = tuple[int, bytes]


class Post(Protocol):
    """Takes mails."""

    def send(
        self, mail: EmailMessage, sender: str, to: list[str], hand_over: Callable[[], None]
    ) -> None:
        """Hand a mail over, to all of `to` or to none.

        Args:
            hand_over: Called before the first byte of the content; from then on, until this
                returns or raises, nobody else can know whether the mail went out.

        Raises:
            MailError: It was not taken, or nobody knows.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def open_post(settings: Settings) -> Post:
    """The mail server of the settings, or the maildir; a connection is made when needed."""
    if settings.smtp_url is None:
        return MaildirPost(maildir(settings))
    return SmtpPost(settings.smtp_url.get_secret_value(), address(settings.mail_from).domain)


class MaildirPost:
    """Writes mails into a folder that mail programs can read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(
        self, mail: EmailMessage, sender: str, to: list[str], hand_over: Callable[[], None]
    ) -> None:
        """See `Post.send`; a mail that is written a second time replaces the first."""
        hand_over()
        name = mail["Message-ID"].strip("<>").partition("@")[0]
        try:
            for part in ("tmp", "new", "cur"):
                (self._folder / part).mkdir(parents=True, exist_ok=True)
            (self._folder / "tmp" / name).write_bytes(mail.as_bytes())
            os.replace(self._folder / "tmp" / name, self._folder / "new" / name)
        except OSError as error:
            raise MailError("mail_postponed", f"{self._folder}: {error}") from error

    def close(self) -> None:
        """Nothing is open."""


class SmtpPost:
    """One connection to a mail server, made anew where the server has closed it.

    Args:
        url: ``smtp://`` or ``smtps://``, with user and password.
        name: What this host calls itself.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = urlsplit(url)
        self._name = name
        self._smtp: smtplib.SMTP | None = None

    def send(
        self, mail: EmailMessage, sender: str, to: list[str], hand_over: Callable[[], None]
    ) -> None:
        """See `Post.send`."""
        smtp = self._connected()
        try:
            with _connection():
                _require(smtp.mail(sender))
                for each in to:
                    _require(smtp.rcpt(each))
                _require(smtp.docmd("DATA"))
            hand_over()
            with _connection():  # one that breaks before the last byte has brought nothing
                smtp.send(_content(mail))
            try:
                reply = smtp.getreply()
            except OSError as error:  # the root of smtplib's errors too
                raise MailError(
                    "mail_in_doubt",
                    f"{', '.join(to)}: the connection broke before the mail server had said "
                    f"whether it takes {mail['Message-ID']}.",
                ) from error
            _require(reply)
        except MailError as error:
            if error.code in ("mail_refused", "mail_postponed"):
                self._reset(smtp)
            else:
                self.close()
            raise MailError(error.code, f"{', '.join(to)}: {error}") from error
        except BaseException:
            self.close()  # in the middle of something
            raise

    def close(self) -> None:
        """Close the connection, without a word if it is broken."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def _reset(self, smtp: smtplib.SMTP) -> None:
        try:
            smtp.rset()
        except OSError:
            self.close()

    def _connected(self) -> smtplib.SMTP:
        if self._smtp is not None:
            with contextlib.suppress(OSError):
                if self._smtp.noop()[0] == 250:
                    return self._smtp
            self.close()
        try:
            with _connection():
                self._smtp = self._connect()
                self._greet(self._smtp)
        except MailError as error:
            self.close()
            # That it does not take us says nothing of the mail.
            refused = error.code == "mail_refused"
            code = "mail_server_unusable" if refused else "mail_server_away"
            raise MailError(code, f"the mail server: {error}") from error
        return self._smtp

    def _connect(self) -> smtplib.SMTP:
        host = self._url.hostname or ""
        port = self._url.port or PORTS[self._url.scheme]
        options: dict[str, Any] = {"local_hostname": self._name, "timeout": TIMEOUT_SECONDS}
        if self._url.scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, context=ssl.create_default_context(), **options)
        return smtplib.SMTP(host, port, **options)

    def _greet(self, smtp: smtplib.SMTP) -> None:
        """Introduce ourselves, have the connection encrypted, and sign in."""
        smtp.ehlo()
        wanted = "no" not in parse_qs(self._url.query).get("starttls", ())
        if self._url.scheme == "smtp" and wanted:
            if smtp.has_extn("starttls"):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            elif self._url.hostname not in LOOPBACK:
                text = "it has no STARTTLS: use smtps:// in SMTP_URL, or ?starttls=no"
                raise MailError("mail_refused", text)
        if self._url.username:
            smtp.login(unquote(self._url.username), unquote(self._url.password or ""))


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """What goes wrong with a connection, as a `MailError`."""
    try:
        yield
    except smtplib.SMTPResponseException as error:
        _require((error.smtp_code, _bytes(error.smtp_error)))
        raise MailError("mail_server_away", str(error)) from error
    except smtplib.SMTPException as error:
        broken = isinstance(error, smtplib.SMTPServerDisconnected)
        raise MailError("mail_server_away" if broken else "mail_refused", str(error)) from error
    except OSError as error:
        raise MailError("mail_server_away", f"no connection: {error}") from error


def _require(reply: Reply) -> None:
    """Go on if the mail server agrees; 421 says that it is about to close the connection."""
    code, text = reply
    if code // 100 in (2, 3):
        return
    said = f"{code} {text.decode('utf-8', 'replace')}"
    if code // 100 == 5:
        raise MailError("mail_refused", said)
    raise MailError("mail_server_away" if code in (421, -1) else "mail_postponed", said)


def _content(mail: EmailMessage) -> bytes:
    """The mail as it goes over the wire, with its end."""
    lines = re.sub(rb"(?m)^\.", b"..", mail.as_bytes())
    return lines + (b".\r\n" if lines.endswith(b"\r\n") else b"\r\n.\r\n")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
