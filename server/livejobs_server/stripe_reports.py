"""What Stripe reports of meter events that it took and could not use.

A notification is thin: signed, it names an event, which is then fetched with the API key.
"""

from __future__ import annotations

from typing import Any, Final

from livejobs.settings import Settings

from .problems import ApiProblem

REPORTS: Final = (
    "v1.billing.meter.error_report_triggered",
    "v1.billing.meter.no_meter_found",
)
FETCH_SECONDS: Final = 20.0


def read_report(settings: Settings, body: bytes, signature: str | None) -> dict[str, str]:
    """What was wrong with which meter events, by their identifiers; it may call Stripe.

    Empty for a notification of another kind. Stripe names samples, not all events.

    Raises:
        ApiProblem: Stripe has not signed it; or its event cannot be fetched, and Stripe is to
            notify again later.
    """
    secret, key = settings.stripe_webhook_secret, settings.stripe_api_key
    if secret is None:
        raise ApiProblem("stripe_not_set_up", "STRIPE_WEBHOOK_SECRET is not set.")
    # Here, as it takes a third of a second, and few servers need it.
    import stripe

    client = stripe.StripeClient(
        "" if key is None else key.get_secret_value(),
        base_addresses={"api": settings.stripe_api_base.rstrip("/")},
        http_client=stripe.RequestsClient(timeout=FETCH_SECONDS),
        max_network_retries=0,
    )
    try:
        told = client.parse_event_notification(body, signature, secret.get_secret_value())
    except stripe.SignatureVerificationError as error:
        raise ApiProblem("invalid_signature", error.user_message) from None
    except UnicodeDecodeError:
        raise ApiProblem("invalid_signature") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ApiProblem("malformed_body", "This is no thin event of Stripe's.") from None
    if told.type not in REPORTS:
        return {}
    if key is None:
        raise ApiProblem("stripe_not_set_up", "STRIPE_API_KEY is not set.")
    try:
        event: Any = told.fetch_event()
    except stripe.StripeError as error:
        raise ApiProblem("stripe_unavailable", f"The event cannot be fetched: {error}") from error
    return errors_of(event)


def errors_of(event: Any) -> dict[str, str]:
    """The errors in the event of a report, by identifiers."""
    return {
        # Each call had an idempotency key of its own that begins with the identifier.
        sample["request"]["identifier"].partition(".")[0]: f"{kind['code']}: "
        f"{sample['error_message']}"
        for kind in event["data"]["reason"]["error_types"]
        for sample in kind["sample_errors"]
    }
