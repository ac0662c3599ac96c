"""What can be set about the work that comes built in; a part of `Settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from .mail_urls import mail_url
from .setting_fields import env, none_if_empty
from .words import LANGUAGES


class WorkSettings(BaseSettings):
    """The settings of documents, usage, mails and batches of prompts."""

    max_upload_bytes: int = Field(
        50 * 1024 * 1024,
        ge=1,
        validation_alias=env("LIVEJOBS_MAX_UPLOAD_BYTES"),
        description="Largest file of an upload, in bytes.",
    )
    max_upload_files: int = Field(
        100,
        ge=1,
        validation_alias=env("LIVEJOBS_MAX_UPLOAD_FILES"),
        description="Most files in one upload.",
    )
    search_language: str | None = Field(
        None,
        validation_alias=env("LIVEJOBS_SEARCH_LANGUAGE"),
        description="Language of documents and searches that name none, like english: forms of a "
        "word are found too; unset: words are found as they are.",
    )
    max_batch_files: int = Field(
        10_000,
        ge=1,
        validation_alias=env("LIVEJOBS_MAX_BATCH_FILES"),
        description="Most files in one `POST /v1/documents`.",
    )
    max_batch_bytes: int = Field(
        5 * 1024**3,
        ge=1,
        validation_alias=env("LIVEJOBS_MAX_BATCH_BYTES"),
        description="Most in all files of one `POST /v1/documents` together, in bytes.",
    )
    stripe_api_key: SecretStr | None = Field(
        None,
        validation_alias=env("STRIPE_API_KEY"),
        description="Key that usage is sent to Stripe with; unset: usage is kept.",
    )
    stripe_webhook_secret: SecretStr | None = Field(
        None,
        validation_alias=env("STRIPE_WEBHOOK_SECRET"),
        description="Secret that Stripe signs its reports with; unset: none are taken.",
    )
    stripe_api_base: str = Field(
        "https://api.stripe.com",
        validation_alias=env("LIVEJOBS_STRIPE_API_BASE"),
        description="Where Stripe's API is; for tests.",
    )
    smtp_url: SecretStr | None = Field(
        None,
        validation_alias=env("SMTP_URL"),
        description="The mail server, smtp:// (STARTTLS) or smtps://, with user and password; "
        "unset: mails are written to a maildir in the data folder.",
    )
    mail_from: str = Field(
        "livejobs@localhost",
        validation_alias=env("LIVEJOBS_MAIL_FROM"),
        description="Sender of mails, an address or `Name <address>`.",
    )
    mail_templates: Path | None = Field(
        None,
        validation_alias=env("LIVEJOBS_MAIL_TEMPLATES"),
        description="Folder of the templates of mails; unset: there are none.",
    )
    llm_base_url: str | None = Field(
        None,
        validation_alias=env("LIVEJOBS_LLM_BASE_URL"),
        description="An OpenAI-compatible endpoint for batches of prompts, like "
        "https://api.openai.com/v1; unset: `livejobs up` runs a small model of its own.",
    )
    llm_api_key: SecretStr | None = Field(
        None,
        validation_alias=env("LIVEJOBS_LLM_API_KEY"),
        description="The key for that endpoint; unset: it needs none.",
    )
    llm_model: str | None = Field(
        None,
        validation_alias=env("LIVEJOBS_LLM_MODEL"),
        description="The model that is asked where a batch names none.",
    )

    # Not the name of the one in `Settings`, which would take its place.
    _unset_if_empty = field_validator(
        *("search_language", "stripe_api_key", "stripe_webhook_secret", "smtp_url"),
        *("mail_templates", "llm_base_url", "llm_api_key", "llm_model"),
        mode="before",
    )(none_if_empty)

    _known_mail_server = field_validator("smtp_url")(mail_url)

    @field_validator("search_language")
    @classmethod
    def _known_language(cls, language: str | None) -> str | None:
        if language is not None and language not in LANGUAGES:
            raise ValueError(f"it is one of {', '.join(LANGUAGES)}")
        return language
