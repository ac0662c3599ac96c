"""A server that behaves as Stripe documents it for meter events, on loopback, with faults at will.

An event's identifier is known for 24 hours and refused meanwhile; a timestamp lies at most 35 days
back and 5 minutes ahead; a value has at most 15 digits; the same ``Idempotency-Key`` gets the same
answer, also where that is an error of Stripe's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl

KEY: Final = "sk_test_a_key_that_is_never_logged"
WEBHOOK_SECRET: Final = "whsec_a_secret_that_is_never_logged"
DAY: Final = 86_400.0
LARGEST: Final = 10**15

FAULTS: Final = ("429", "500", "500 after", "cut", "cut after", "garbage after")
"""What can go wrong: `after` says that the event has been taken all the same."""


@dataclass(frozen=True)
class MeterEvent:
    """An event that was taken."""

    customer: str
    meter: str
    value: int
    timestamp: int


class StripeServer:
    """Takes meter events.

    Attributes:
        fault: Called at each event; what goes wrong with it, one of `FAULTS`, or None.
        refuse: Called for each event's customer and meter; an error's code and message, or None.
        duplicate_code: The code of the error about an identifier that is known; None: it has none.
        taken: All events ever taken.
        keys: The idempotency keys of all calls.
        reports: Events that can be fetched, by their ids.
    """

    def __init__(self) -> None:
        self.fault: Callable[[], str | None] = lambda: None
        self.refuse: Callable[[str, str], tuple[str, str] | None] = lambda customer, meter: None
        self.duplicate_code: str | None = None
        self.taken: list[tuple[str, MeterEvent]] = []
        self.keys: list[str] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self._known: dict[str, float] = {}
        self._answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """End it; connections are refused from now on."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def pass_time(self, seconds: float) -> None:
        """All that it has taken was taken so much earlier."""
        with self._lock:
            self._known = {name: at - seconds for name, at in self._known.items()}
            self._answers.clear()

    def fail(self, *faults: str | None) -> None:
        """The next events meet these faults in turn; None: none."""
        coming = deque(faults)
        self.fault = lambda: coming.popleft() if coming else None

    def sums(self) -> Counter[tuple[str, str]]:
        """What has arrived for each customer and meter."""
        found: Counter[tuple[str, str]] = Counter()
        for _, event in self.taken:
            found[event.customer, event.meter] += event.value
        return found

    def report(self, *identifiers: str, code: str = "meter_event_customer_not_found") -> bytes:
        """Make a report of events that could not be used; the thin notification of it."""
        event_id = f"evt_test_{len(self.reports):024}"
        samples = [
            {"error_message": f"no use for {each}", "request": {"identifier": each}}
            for each in identifiers
        ]
        kind = {"code": code, "error_count": len(samples), "sample_errors": samples}
        thin = {
            "id": event_id,
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "livemode": False,
            "created": "2026-11-22T10:00:00.000Z",
            "context": None,
            "related_object": {
                "id": "mtr_test_1",
                "type": "billing.meter",
                "url": "/v1/billing/meters/mtr_test_1",
            },
        }
        self.reports[event_id] = thin | {
            "data": {
                "developer_message_summary": f"There are {len(samples)} invalid events",
                "validation_start": "2026-11-22T09:59:50.000Z",
                "validation_end": "2026-11-22T10:00:00.000Z",
                "reason": {"error_count": len(samples), "error_types": [kind]},
            }
        }
        return json.dumps(thin).encode()

    # -- answers -----------------------------------------------------------------------------------

    def answer(
        self, form: dict[str, str], key: str, fault: str | None
    ) -> tuple[int, dict[str, Any]]:
        """The answer to a meter event, which is taken if nothing speaks against it."""
        with self._lock:
            self.keys.append(key)
            if key not in self._answers:
                answer = None if fault == "500" else self._take(form)
                if answer is None or fault == "500 after":
                    answer = _error(500, "Something went wrong.", None)
                self._answers[key] = answer
            return self._answers[key]

    def _take(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        identifier, timestamp = form["identifier"], int(form["timestamp"])
        customer, value = form["payload[stripe_customer_id]"], form["payload[value]"]
        now = time.time()
        if self._known.get(identifier, 0.0) > now - DAY:
            message = f"An event already exists with identifier {identifier}."
            return _error(400, message, self.duplicate_code)
        if timestamp < now - 35 * DAY:
            message = "The timestamp must be within the past 35 calendar days."
            return _error(400, message, "timestamp_too_far_in_past")
        if timestamp > now + 300:
            message = "The timestamp must not be more than 5 minutes in the future."
            return _error(400, message, "timestamp_in_future")
        if abs(int(value)) >= LARGEST:
            return _error(400, "at most 15 digits", "meter_event_value_too_many_digits")
        refusal = self.refuse(customer, form["event_name"])
        if refusal is not None:
            return _error(400, refusal[1], refusal[0])
        event = MeterEvent(customer, form["event_name"], int(value), timestamp)
        self._known[identifier] = now
        self.taken.append((identifier, event))
        return 200, {
            "object": "billing.meter_event",
            "created": int(now),
            "event_name": event.meter,
            "identifier": identifier,
            "livemode": False,
            "payload": {"stripe_customer_id": customer, "value": value},
            "timestamp": timestamp,
        }


def _error(status: int, message: str, code: str | None) -> tuple[int, dict[str, Any]]:
    kind = {400: "invalid_request_error", 404: "invalid_request_error"}.get(status, "api_error")
    error = {"type": kind, "message": message} | ({} if code is None else {"code": code})
    return status, {"error": error}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is no news."""


def _handler_of(server: StripeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else Linux waits with the body for the acknowledgement of the head.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if not self._is_known():
                return
            assert self.path == "/v1/billing/meter_events", self.path
            fault = server.fault()
            if fault == "429":
                self._send(*_error(429, "Too many requests.", "rate_limit"))
            elif fault == "cut":
                self._cut()
            else:
                form, key = dict(parse_qsl(body)), self.headers["Idempotency-Key"]
                status, answer = server.answer(form, key, fault)
                if fault == "garbage after":
                    self._send(200, None)
                elif fault == "cut after":
                    self._cut()
                else:
                    self._send(status, answer)

        def do_GET(self) -> None:
            if not self._is_known():
                return
            event = server.reports.get(self.path.removeprefix("/v2/core/events/"))
            fault = server.fault()
            if fault is not None:
                self._send(*_error(500, "Something went wrong.", None))
            elif event is None:
                self._send(*_error(404, "No such event.", "resource_missing"))
            else:
                self._send(200, event)

        def _is_known(self) -> bool:
            if self.headers["Authorization"] == f"Bearer {KEY}":
                return True
            self._send(401, {"error": {"type": "invalid_request_error", "message": "Invalid key"}})
            return False

        def _send(self, status: int, answer: dict[str, Any] | None) -> None:
            body = b"<html>" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Stripe-Should-Retry", "false")
            self.end_headers()
            self.wfile.write(body)

        def _cut(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Handler


def signed(body: bytes, secret: str = WEBHOOK_SECRET, at: float | None = None) -> dict[str, str]:
    """The header by which Stripe signs what it sends."""
    moment = int(time.time() if at is None else at)
    mac = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256)
    return {"Stripe-Signature": f"t={moment},v1={mac.hexdigest()}"}


@contextlib.contextmanager
def stripe_server() -> Iterator[StripeServer]:
    """A server on a free port, until the end of the block."""
    server = StripeServer()
    server.start()
    try:
        yield server
    finally:
        server.close()
