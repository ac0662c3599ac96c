"""What can be set about webhooks; a part of `Settings`."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from .setting_fields import env, split

PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""How long Standard Webhooks lets a key be."""


class WebhookSettings(BaseSettings):
    """The settings of completion webhooks."""

    webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        validation_alias=env("LIVEJOBS_WEBHOOK_SECRET"),
        description="Secrets that webhooks are signed with, whsec_…, comma separated; "
        "empty: there are no webhooks.",
    )
    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        validation_alias=env("LIVEJOBS_WEBHOOK_NETWORKS"),
        description="Private networks that webhooks may go to, like 10.1.0.0/16, comma separated; "
        "empty: none.",
    )
    webhook_queue: str = Field(
        "celery",
        min_length=1,
        validation_alias=env("LIVEJOBS_WEBHOOK_QUEUE"),
        description="Queue of the jobs that send webhooks.",
    )

    @field_validator("webhook_secret", "webhook_networks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return split(value)

    @field_validator("webhook_secret")
    @classmethod
    def _can_sign(cls, given: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(_is_secret(secret.get_secret_value()) for secret in given):
            raise ValueError(
                "each is whsec_ and 24 to 64 bytes in base64: `livejobs webhooks secret` makes one"
            )
        return given


def new_secret() -> str:
    """A secret that nobody knows yet."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def owner_secret(secret: str, owner: str) -> str:
    """The secret for one owner's receivers: who has it cannot sign webhooks of others.

    Args:
        secret: One of `LIVEJOBS_WEBHOOK_SECRET`, from which it is derived.
        owner: Whose jobs are told of.
    """
    key = hmac.digest(_key(secret), b"livejobs webhooks of " + owner.encode(), "sha256")
    return PREFIX + base64.b64encode(key).decode()


def _is_secret(text: str) -> bool:
    try:
        return text.startswith(PREFIX) and len(_key(text)) in KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _key(secret: str) -> bytes:
    kept = secret.removeprefix(PREFIX)
    return base64.b64decode(kept + "=" * (-len(kept) % 4), validate=True)
