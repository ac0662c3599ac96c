"""A POST to somebody else's server, over real sockets: where it goes, and when it gives up."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from livejobs.errors import WebhookError
from livejobs.settings import Settings
from livejobs.webhook_settings import owner_secret
from livejobs.webhook_urls import Network
from livejobs_worker.courier import MAX_ANSWER_BYTES, Answer, carry
from livejobs_worker.webhooks import DAY, asked_for, signed
from tests.support.webhook_receiver import (
    ENDLESS,
    LOOPBACK,
    OLD_SECRET,
    SECRET,
    Receiver,
    webhook_receiver,
)

pytest_plugins = ["tests.support.webhook_stack", "tests.support.mail_stack"]

HEADERS = {"content-type": "application/json", "webhook-id": "1"}


@pytest.fixture
def elsewhere() -> Iterator[Receiver]:
    """Another receiver, inside the private network."""
    with webhook_receiver() as server:
        yield server


def refusal(url: str, networks: Sequence[Network] = (), **options: Any) -> WebhookError:
    """Why a POST does not arrive."""
    with pytest.raises(WebhookError) as raised:
        carry(url, {}, options.pop("body", b""), networks, **options)
    return raised.value


def named(*answers: str) -> Callable[[str, int], list[str]]:
    """A resolver that answers these addresses, one after the other, the last for ever."""
    left = list(answers)
    return lambda _host, _port: [left.pop(0) if len(left) > 1 else left[0]]


# -- what arrives ----------------------------------------------------------------------------------


def test_post_arrives_as_it_was_sent(receiver: Receiver) -> None:
    body = '{"text":"ü"}'.encode()
    assert carry(f"{receiver.url}/a/b?c=d", HEADERS, body, LOOPBACK) == Answer(204, "")
    (taken,) = receiver.taken
    assert (taken.path, taken.body) == ("/a/b?c=d", body)
    assert taken.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert taken.headers["content-length"] == str(len(body))
    assert taken.headers.items() >= HEADERS.items()


def test_signature_is_what_receivers_verify_also_while_secrets_change(receiver: Receiver) -> None:
    settings = Settings(webhook_secret=f"{SECRET},{OLD_SECRET}")
    event = '{"type":"job.completed","data":{"text":"ü"}}'
    carry(receiver.url, signed("id-1", event, settings), event.encode(), LOOPBACK)
    (taken,) = receiver.taken
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(taken.body, taken.headers)["type"] == "job.completed"
    assert taken.headers["webhook-signature"].count("v1,") == 2
    assert SECRET[6:] not in str(taken.headers)


def test_receivers_of_an_owner_verify_with_a_secret_of_their_own() -> None:
    settings = Settings(webhook_secret=f"{SECRET},{OLD_SECRET}")
    headers = signed("id-1", "{}", settings, "ada")
    for secret in (SECRET, OLD_SECRET):
        for known in (secret, owner_secret(secret, "ada")):
            Webhook(known).verify("{}", headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(owner_secret(secret, "bob")).verify("{}", headers)
    assert owner_secret(SECRET, "ada") != owner_secret(OLD_SECRET, "ada")


def test_signature_is_that_of_the_standards_example() -> None:
    # The values are those of the test of the standard's own libraries.
    body = '{"test": 2432232314}'
    moment = datetime.fromtimestamp(1614265330, UTC)
    made = Webhook(OLD_SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", moment, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signing_needs_a_secret() -> None:
    with pytest.raises(WebhookError) as raised:
        signed("id", "{}", Settings(webhook_secret=""))
    assert raised.value.code == "webhook_not_set_up"


# -- where it must not go --------------------------------------------------------------------------


def test_private_address_is_refused_before_anything_is_sent(receiver: Receiver) -> None:
    name = f"http://example.com:{receiver.port}/"
    for url, resolve in (
        (receiver.url, named("127.0.0.1")),
        (name, named("127.0.0.1")),
        (name, named("::ffff:127.0.0.1")),
        (name, named("10.0.0.1")),
    ):
        error = refusal(url, resolve=resolve)
        assert error.code == "webhook_forbidden"
        assert "LIVEJOBS_WEBHOOK_NETWORKS" in str(error)
    assert receiver.taken == []


def test_name_of_this_machine_is_looked_up_and_refused(receiver: Receiver) -> None:
    for host in ("localhost", "127.1", "2130706433"):
        error = refusal(f"http://{host}:{receiver.port}/")
        assert error.code == "webhook_forbidden", host
    assert receiver.taken == []


def test_address_that_was_looked_at_is_the_one_that_is_connected_to(receiver: Receiver) -> None:
    """A name that means a public address first and a private one later leads nowhere."""
    # 192.0.2.0/24 is nobody's; it stands for a public network here, by being allowed.
    public = Settings(webhook_networks="192.0.2.0/24").webhook_networks
    asked: list[str] = []
    rebinding = named("192.0.2.1", "127.0.0.1")

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return rebinding(host, port)

    def code() -> str:
        url = f"http://example.com:{receiver.port}/"
        return refusal(url, public, seconds=0.5, resolve=resolve).code

    assert code() == "webhook_unreachable"
    assert asked == ["example.com"]
    assert code() == "webhook_forbidden"
    assert receiver.taken == []


def test_only_the_allowed_of_several_addresses_is_connected_to(receiver: Receiver) -> None:
    url = f"http://example.com:{receiver.port}/"
    answer = carry(url, {}, b"", LOOPBACK, resolve=lambda *_: ["10.0.0.1", "127.0.0.1"])
    assert answer.status == 204
    assert receiver.taken[0].headers["host"] == f"example.com:{receiver.port}"


def test_next_address_is_tried_when_one_refuses_the_connection(receiver: Receiver) -> None:
    url = f"http://example.com:{receiver.port}/"
    answer = carry(url, {}, b"", LOOPBACK, resolve=lambda *_: ["127.0.0.9", "127.0.0.1"])
    assert answer.status == 204


def test_redirect_is_an_answer_and_not_followed(receiver: Receiver, elsewhere: Receiver) -> None:
    for status in (301, 302, 303, 307, 308):
        url = receiver.plan("/moved", (status, {"Location": f"{elsewhere.url}/admin"}))
        assert carry(url, {}, b"{}", LOOPBACK).status == status
    assert elsewhere.taken == []


def test_proxy_of_the_environment_is_not_used(
    receiver: Receiver, elsewhere: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
    assert carry(receiver.url, {}, b"", LOOPBACK).status == 204
    assert elsewhere.taken == []


# -- TLS -------------------------------------------------------------------------------------------


def test_certificate_is_checked_against_the_name(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    with webhook_receiver(certificate) as receiver:
        resolve = named("127.0.0.1")
        good = f"https://localhost:{receiver.port}/"
        assert carry(good, {}, b"", LOOPBACK, tls=trusting, resolve=resolve).status == 204
        unknown = refusal(good, LOOPBACK, resolve=resolve)
        other = f"https://example.com:{receiver.port}/"
        wrong = refusal(other, LOOPBACK, tls=trusting, resolve=resolve)
        assert len(receiver.taken) == 1
    assert unknown.code == wrong.code == "webhook_unreachable"
    assert "certificate" in str(unknown).lower()


# -- when it gives up ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["slow", "drip"])
def test_receiver_that_takes_too_long_is_given_up(receiver: Receiver, kind: str) -> None:
    url = receiver.plan("/", (kind,))
    error = refusal(url, LOOPBACK, seconds=0.6)
    assert error.code == "webhook_unreachable"
    assert "longer than 0.6 s" in str(error)


def test_receiver_that_reads_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        body = b"x" * (64 * 1024 * 1024)
        error = refusal(url, LOOPBACK, body=body, seconds=0.6)
    assert "longer than 0.6 s" in str(error)


def test_resolver_that_hangs_is_given_up(receiver: Receiver) -> None:
    let_go = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        let_go.wait(60)
        return ["127.0.0.1"]

    url = f"http://example.com:{receiver.port}/"
    error = refusal(url, LOOPBACK, seconds=0.3, resolve=resolve)
    let_go.set()
    assert error.code == "webhook_unreachable"
    assert receiver.taken == []


def test_connection_that_breaks_is_no_answer(receiver: Receiver) -> None:
    url = receiver.plan("/", ("cut",))
    assert refusal(url, LOOPBACK).code == "webhook_unreachable"


def test_port_on_which_nobody_listens_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = refusal(f"http://127.0.0.1:{port}/?key=hidden", LOOPBACK)
    assert error.code == "webhook_unreachable"
    assert "hidden" not in str(error)


def test_name_that_nobody_knows_is_no_answer() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    error = refusal("https://example.com/", resolve=resolve)
    assert error.code == "webhook_unreachable"


def test_huge_answer_is_read_to_its_bound_only(receiver: Receiver) -> None:
    assert carry(receiver.plan("/", ("huge",)), {}, b"", LOOPBACK).status == 200
    assert receiver.ended.wait(10)
    # What the kernel's buffers took is more than what was read.
    assert MAX_ANSWER_BYTES < receiver.sent < ENDLESS


# -- Retry-After -----------------------------------------------------------------------------------


def test_retry_after_is_heeded_with_429_and_503_only() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert asked_for(Answer(429, "7"), now) == 7.0
    assert asked_for(Answer(503, date), now) == 90.0
    assert asked_for(Answer(500, "7"), now) == 0.0
    assert asked_for(Answer(429, format_datetime(now, usegmt=True)), now) == 0.0
    assert asked_for(Answer(429, "1e99"), now) == DAY
    for odd in ("", "soon", "-5", "nan", "inf", "Wed, 99 Foo"):
        assert asked_for(Answer(429, odd), now) == 0.0, odd
