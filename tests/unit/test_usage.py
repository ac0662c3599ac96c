"""What usage can be recorded, and what is made of Stripe's errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from livejobs.usage import MAX_VALUE, NewUsage
from livejobs.usage_batches import LEASE_SECONDS, MOST_IN_A_BATCH, Batch
from livejobs_worker.usage import (
    CALL_SECONDS,
    is_there_already,
    may_have_arrived,
    pause_of,
    said_by,
)

GOOD: dict[str, Any] = {"customer": "cus_1", "meter": "tokens", "value": 1, "key": "a"}
BATCH = Batch(
    id="b" * 32,
    customer="cus_1",
    meter="tokens",
    value=1,
    events=1,
    at=datetime(2026, 11, 22, tzinfo=UTC),
    tries=1,
    doubtful=False,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": ""},
        {"customer": "c" * 101},
        {"customer": "cus\0"},
        {"meter": ""},
        {"meter": "\ud800"},
        {"key": ""},
        {"key": "k" * 256},
        {"value": 1.5},
        {"value": True},
        {"value": "1"},
        {"value": MAX_VALUE + 1},
        {"value": -MAX_VALUE - 1},
        {"at": datetime(2026, 11, 22)},
    ],
)
def test_usage_that_cannot_be_billed_is_refused(wrong: dict[str, Any]) -> None:
    NewUsage(**GOOD)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NewUsage(**GOOD | wrong)


def test_sums_keep_within_the_digits_that_stripe_takes() -> None:
    assert MAX_VALUE * MOST_IN_A_BATCH < 10**15


def test_call_ends_before_its_batch_is_taken_by_another() -> None:
    # Stripe's library waits so long to connect and so long for each piece of the answer.
    assert 3 * CALL_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize(
    ("message", "code", "known"),
    [
        (f"An event already exists with identifier {BATCH.id}.", None, True),
        ("An event already exists with identifier of another.", None, False),
        ("There is one.", "resource_already_exists", True),
        ("There is one.", "duplicate_meter_event", True),
        ("No such meter.", "resource_missing", False),
        (None, None, False),
    ],
)
def test_batch_that_stripe_has_is_known_by_the_error(
    message: str | None, code: str | None, known: bool
) -> None:
    error = stripe.InvalidRequestError(message, None, code=code, http_status=400)
    assert is_there_already(error, BATCH) is known


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [
        (stripe.RateLimitError("slow down", http_status=429), False),
        (stripe.AuthenticationError("who?", http_status=401), False),
        (stripe.PermissionError("no", http_status=403), False),
        (stripe.APIError("oh", http_status=500), True),
        (stripe.IdempotencyError("again?", http_status=400), True),
        (stripe.APIConnectionError("gone"), True),
    ],
)
def test_call_may_have_arrived_unless_the_error_rules_it_out(
    error: stripe.StripeError, doubtful: bool
) -> None:
    assert may_have_arrived(error) is doubtful


def test_pause_is_as_long_as_stripe_asks_for() -> None:
    asked = stripe.RateLimitError("slow down", headers={"retry-after": "7"})
    assert pause_of(asked) == 7.0
    assert pause_of(stripe.RateLimitError("x", headers={"retry-after": "soon"})) is None
    assert pause_of(stripe.APIError("x")) is None


def test_error_is_said_in_a_line() -> None:
    error = stripe.APIConnectionError("Unexpected\nerror\n\n(Network error: x)")
    assert said_by(error) == "no answer APIConnectionError: Unexpected error (Network error: x)"
