"""How each route of the server is tried by people who have no right to a job of Alice's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECRET = "alices-secret"
SHARED_KEY = "shared"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
WRONG_KEY = "lj_000000000000_" + "x" * 43
MAIL = {"to": ["eve@example.com"], "subject": "Hello", "text": "…"}
WEBHOOK = {"url": "https://hooks.example.com/bob"}
UPLOAD = {"files": {"files": ("mine.txt", b"bob's own")}}


@dataclass(frozen=True)
class Try:
    """A request that tries to reach a job.

    Attributes:
        more: Arguments of the request, for a job id.
        status: What everybody without a right is answered, but for 401 without credentials.
        empty: It is no one job's; it is answered, with nothing of Alice's.
        whole: Credentials of certain jobs are not good enough for it.
        admin: It is for admins, and Alice is none.
        public: Everybody is answered the same, by one of `statuses`.
    """

    more: Callable[[str], dict[str, Any]] = lambda _job_id: {}
    status: int = 404
    empty: bool = False
    public: bool = False
    whole: bool = False
    admin: bool = False
    statuses: tuple[int, ...] = (200, 503)


def subscription(job_id: str) -> dict[str, Any]:
    return {"json": {"subscribe": [{"job_id": job_id, "after": "0-0"}]}}


HTTP: dict[tuple[str, str], Try] = {
    ("GET", "/v1/jobs"): Try(lambda job_id: {"params": {"q": job_id[:8]}}, 200, empty=True),
    ("POST", "/v1/jobs"): Try(lambda _: {"json": {"task": "demo.led"}}, 202, empty=True),
    ("GET", "/v1/jobs/{job_id}"): Try(lambda _: {"params": {"after": "0-0"}}),
    ("DELETE", "/v1/jobs/{job_id}"): Try(),
    ("POST", "/v1/jobs/{job_id}/cancel"): Try(),
    ("POST", "/v1/jobs/{job_id}/retry"): Try(),
    ("GET", "/v1/jobs/{job_id}/entries"): Try(),
    ("GET", "/v1/jobs/{job_id}/result"): Try(),
    ("GET", "/v1/jobs/{job_id}/results"): Try(),
    ("GET", "/v1/jobs/{job_id}/timeline"): Try(),
    ("GET", "/v1/jobs/{job_id}/why"): Try(status=403, admin=True),
    ("GET", "/v1/jobs/{job_id}/stack"): Try(status=403, admin=True),
    ("GET", "/v1/jobs/{job_id}/events"): Try(lambda _: {"params": {"after": "0-0"}}),
    ("POST", "/v1/events"): Try(subscription, 200, empty=True),
    ("POST", "/v1/poll"): Try(subscription, 200, empty=True),
    ("POST", "/v1/tokens"): Try(lambda job_id: {"json": {"jobs": [job_id]}}),
    ("POST", "/v1/tickets"): Try(lambda job_id: {"json": {"jobs": [job_id]}}),
    ("POST", "/v1/rag/ingest"): Try(lambda _: UPLOAD, 202, empty=True),
    ("POST", "/v1/documents"): Try(lambda _: UPLOAD, 202, empty=True),
    # There is no model here, and it is asked for after the credentials.
    ("POST", "/v1/llm/batch"): Try(lambda _: {"json": {"prompts": ["x"]}}, 501, empty=True),
    ("GET", "/v1/rag/search"): Try(lambda _: {"params": {"q": SECRET}}, 200, empty=True),
    ("GET", "/v1/usage"): Try(status=200, empty=True),
    ("GET", "/v1/usage/batches"): Try(status=200, empty=True),
    ("POST", "/v1/usage/batches/{identifier}"): Try(
        lambda _: {"json": {"arrived": True}}, 403, admin=True
    ),
    # Stripe's signature is the credential, and this server has no secret to check it with.
    ("POST", "/v1/stripe/webhook"): Try(public=True, statuses=(501,)),
    ("GET", "/v1/documents"): Try(status=200, empty=True),
    ("GET", "/v1/documents/{document_id}"): Try(whole=True),
    ("POST", "/v1/documents/{document_id}/ingest"): Try(whole=True),
    ("DELETE", "/v1/documents/{document_id}"): Try(whole=True),
    ("GET", "/v1/schedule"): Try(status=403, admin=True),
    ("POST", "/v1/emails"): Try(lambda _: {"json": MAIL}, 202, empty=True),
    ("GET", "/v1/jobs/{job_id}/webhooks"): Try(whole=True),
    ("POST", "/v1/jobs/{job_id}/webhooks/resend"): Try(whole=True),
    ("PUT", "/v1/webhooks/default"): Try(lambda _: {"json": WEBHOOK}, 200, empty=True),
    ("GET", "/v1/webhooks/default"): Try(status=200, empty=True),
    ("DELETE", "/v1/webhooks/default"): Try(status=204, empty=True),
    ("GET", "/v1/webhooks/secret"): Try(status=200, empty=True),
    # It tells numbers only, to whoever comes from the same machine without other credentials.
    ("GET", "/metrics"): Try(public=True, statuses=(200, 401, 403)),
    ("GET", "/healthz"): Try(status=200, public=True),
    ("GET", "/readyz"): Try(status=200, public=True),
    ("GET", "/openapi.json"): Try(status=200, public=True),
    ("HEAD", "/openapi.json"): Try(status=200, public=True),
    ("GET", "/docs"): Try(status=200, public=True),
    ("HEAD", "/docs"): Try(status=200, public=True),
    ("GET", "/docs/oauth2-redirect"): Try(status=200, public=True),
    ("HEAD", "/docs/oauth2-redirect"): Try(status=200, public=True),
    ("GET", "/client.js"): Try(public=True),
    ("HEAD", "/client.js"): Try(public=True),
    ("GET", "/client/{name:path}"): Try(public=True, statuses=(404,)),
    ("HEAD", "/client/{name:path}"): Try(public=True, statuses=(404,)),
    ("GET", "/assets/{digest}/{name:path}"): Try(public=True, statuses=(404,)),
    ("HEAD", "/assets/{digest}/{name:path}"): Try(public=True, statuses=(404,)),
    # A page knows nothing of jobs until its scripts ask for them.
    ("GET", "/"): Try(public=True, statuses=(200, 303)),
    ("HEAD", "/"): Try(public=True, statuses=(200, 303)),
    ("GET", "/jobs/{job_id}"): Try(public=True, statuses=(200, 303)),
    ("HEAD", "/jobs/{job_id}"): Try(public=True, statuses=(200, 303)),
    ("GET", "/sign-in"): Try(public=True, statuses=(200, 303)),
    ("HEAD", "/sign-in"): Try(public=True, statuses=(200, 303)),
    ("POST", "/v1/session"): Try(lambda _: {"json": {"key": WRONG_KEY}}, 401),
    # The last one: it ends a session.
    ("DELETE", "/v1/session"): Try(public=True, statuses=(204,)),
}
