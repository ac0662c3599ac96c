"""Fixtures of the tests that talk to a mail server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from livejobs.settings import Settings, configure

from .crashing import Crasher
from .mail_server import MailServer

APP: Final = "tests.support.mail_app"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for loopback, which is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "livejobs tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    return folder


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server without TLS, on loopback."""
    with MailServer() as server:
        yield server


@pytest.fixture
def by_server(
    settings: Settings, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings by which this process and its children send by the mail server."""
    url = f"smtp://127.0.0.1:{mail_server.port}"
    for name, value in {
        "SMTP_URL": url,
        "LIVEJOBS_MAIL_FROM": "us@example.com",
        "REDIS_URL": settings.redis_url,
        "CELERY_BROKER_URL": settings.redis_url,
    }.items():
        monkeypatch.setenv(name, value)
    given = settings.model_dump() | {"smtp_url": url, "mail_from": "us@example.com"}
    return configure(**given)


@pytest.fixture
def crasher(by_server: Settings, tmp_path: Path) -> Iterator[Crasher]:
    """Runs workers that mail, and die."""
    with Crasher(by_server, tmp_path, APP) as crasher:
        yield crasher
