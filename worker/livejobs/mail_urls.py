"""How a mail server is named."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr


def mail_url(url: SecretStr | None) -> SecretStr | None:
    """The URL of a mail server, which can be used; None: there is none.

    Raises:
        ValueError: It is something else.
    """
    if url is not None:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.port == 0:
            raise ValueError("use smtp://user:password@host:587 or smtps://…:465")
    return url
