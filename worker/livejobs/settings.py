"""What can be set, from the environment or by `configure()`.

The names that users of Celery and Redis know are kept; all others begin with ``LIVEJOBS_``.
`docs/reference/settings.md` lists them, and a test holds that page against this module.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from .database_urls import driver_url
from .errors import SettingsError
from .setting_fields import Names, none_if_empty
from .setting_fields import env as _env
from .setting_fields import split as _split
from .webhook_settings import WebhookSettings
from .work_settings import WorkSettings

_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
OwnerOf = Callable[[], str | None]


class Settings(WorkSettings, WebhookSettings):
    """All settings, validated; read-only."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=_env("REDIS_URL"),
        description="Redis or Valkey for live messages.",
    )
    redis_cluster: bool = Field(
        False,
        validation_alias=_env("LIVEJOBS_REDIS_CLUSTER"),
        description="REDIS_URL names a node of a Redis Cluster; live messages use sharded pub/sub.",
    )
    database_url: str = Field(
        "sqlite:///livejobs.db",
        validation_alias=_env("DATABASE_URL"),
        description="The database of job records: SQLite or PostgreSQL, in any usual spelling.",
    )
    database_schema: str | None = Field(
        None,
        validation_alias=_env("LIVEJOBS_DATABASE_SCHEMA"),
        description="PostgreSQL schema for livejobs' tables; unset: the connection's default.",
    )
    broker_url: str | None = Field(
        None,
        validation_alias=AliasChoices("CELERY_BROKER_URL", "broker_url"),
        description="Celery's broker; unset: REDIS_URL.",
    )
    worker_concurrency: int = Field(
        2,
        ge=1,
        validation_alias=AliasChoices("CELERY_WORKER_CONCURRENCY", "worker_concurrency"),
        description="Processes of the built-in worker.",
    )
    task_always_eager: bool = Field(
        False,
        validation_alias=AliasChoices("CELERY_TASK_ALWAYS_EAGER", "task_always_eager"),
        description="Run tasks inline, without a broker or a worker.",
    )
    data_dir: Path = Field(
        Path(".livejobs"),
        validation_alias=_env("LIVEJOBS_DATA_DIR"),
        description="Folder for uploads and for what `livejobs up` keeps; "
        "server and workers share it.",
    )
    secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        validation_alias=_env("LIVEJOBS_SECRETS"),
        description="Secrets for signed tokens, comma separated: the first signs, all verify.",
    )
    allowed_origins: Names = Field(
        (),
        validation_alias=_env("LIVEJOBS_ALLOWED_ORIGINS"),
        description="Origins whose pages may call the server, comma separated; "
        "empty: the server's own.",
    )
    tasks: Names = Field(
        ("rag.ingest", "demo.*"),
        validation_alias=_env("LIVEJOBS_TASKS"),
        description="Tasks that `POST /v1/jobs` may start, comma separated, * matches any text.",
    )
    host: str = Field(
        "127.0.0.1", validation_alias=_env("LIVEJOBS_HOST"), description="Address to listen on."
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=_env("LIVEJOBS_PORT"),
        description="Port to listen on.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=_env("LIVEJOBS_LOG_FORMAT"), description="text or json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=_env("LIVEJOBS_LOG_LEVEL"),
        description="debug, info, warning or error.",
    )
    lease_seconds: float = Field(
        30.0,
        gt=0,
        validation_alias=_env("LIVEJOBS_LEASE_SECONDS"),
        description="How long a worker's silence is taken for life, in seconds.",
    )
    cancel_grace: float = Field(
        30.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_CANCEL_GRACE"),
        description="Time that a running job has to stop after its cancel, before the process of a "
        "prefork pool that runs it is ended, in seconds.",
    )
    cancel_at_report: bool = Field(
        False,
        validation_alias=_env("LIVEJOBS_CANCEL_AT_REPORT"),
        description="End a task that is to be cancelled at its next report, whichever it is.",
    )
    quiet_after: float = Field(
        600.0,
        gt=0,
        validation_alias=_env("LIVEJOBS_QUIET_AFTER"),
        description="Silence after which a running job is shown as stalled, in seconds.",
    )
    max_runtime: float = Field(
        86_400.0,
        gt=0,
        validation_alias=_env("LIVEJOBS_MAX_RUNTIME"),
        description="Longest time that an execution of a job may take, in seconds.",
    )
    flush_interval: float = Field(
        0.1,
        gt=0,
        validation_alias=_env("LIVEJOBS_FLUSH_INTERVAL"),
        description="Time between two flushes of reports to Redis, in seconds.",
    )
    save_interval: float = Field(
        2.0,
        gt=0,
        validation_alias=_env("LIVEJOBS_SAVE_INTERVAL"),
        description="Time between two writes of a running job's reports to the database, "
        "in seconds.",
    )
    entries_max: int = Field(
        10_000,
        ge=1,
        validation_alias=_env("LIVEJOBS_ENTRIES_MAX"),
        description="Log and output entries kept for each job.",
    )
    entries_ttl: int = Field(
        3600,
        ge=60,
        validation_alias=_env("LIVEJOBS_ENTRIES_TTL"),
        description="How long Redis keeps a job's entries after the last one, in seconds; "
        "the database keeps them longer.",
    )
    keep_completed_days: float = Field(
        30.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_KEEP_COMPLETED_DAYS"),
        description="How long completed jobs are kept, in days; 0: for ever.",
    )
    keep_failed_days: float = Field(
        90.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_KEEP_FAILED_DAYS"),
        description="How long failed jobs are kept, in days; 0: for ever.",
    )
    keep_cancelled_days: float = Field(
        30.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_KEEP_CANCELLED_DAYS"),
        description="How long cancelled jobs are kept, in days; 0: for ever.",
    )
    max_payload_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        validation_alias=_env("LIVEJOBS_MAX_PAYLOAD_BYTES"),
        description="Largest JSON body of a request, and largest WebSocket message, in bytes.",
    )
    max_result_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        validation_alias=_env("LIVEJOBS_MAX_RESULT_BYTES"),
        description="Largest result a job may return, as JSON, in bytes.",
    )
    viewer_buffer_bytes: int = Field(
        256 * 1024,
        ge=16 * 1024,
        validation_alias=_env("LIVEJOBS_VIEWER_BUFFER_BYTES"),
        description="What may wait for one slow viewer before it is sent nothing more "
        "until it has caught up, in bytes.",
    )
    buffer_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024 * 1024,
        validation_alias=_env("LIVEJOBS_BUFFER_BYTES"),
        description="What may wait for all slow viewers of a server process together before those "
        "for whom most waits are closed, in bytes.",
    )
    ping_interval: float = Field(
        15.0,
        gt=0,
        validation_alias=_env("LIVEJOBS_PING_INTERVAL"),
        description="Silence after which a viewer gets a ping, in seconds.",
    )
    enqueue_rate: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,8}/([1-9]\d{0,4} ?)?(second|minute|hour|day)s?$",
        validation_alias=_env("LIVEJOBS_ENQUEUE_RATE"),
        description="Most jobs that an owner may start by REST in a time, like 100/minute or "
        "10/5seconds; unset: no limit.",
    )
    max_open_jobs: int = Field(
        0,
        ge=0,
        validation_alias=_env("LIVEJOBS_MAX_OPEN_JOBS"),
        description="Most jobs of an owner that are not over, for starting another one by REST; "
        "0: no limit.",
    )
    max_owner_connections: int = Field(
        0,
        ge=0,
        validation_alias=_env("LIVEJOBS_MAX_OWNER_CONNECTIONS"),
        description="Most WebSockets, event streams and held polls of one owner in one server "
        "process; 0: no limit.",
    )
    max_address_connections: int = Field(
        0,
        ge=0,
        validation_alias=_env("LIVEJOBS_MAX_ADDRESS_CONNECTIONS"),
        description="The same from one address; 0: no limit.",
    )
    reserved_files: int = Field(
        256,
        ge=0,
        validation_alias=_env("LIVEJOBS_RESERVED_FILES"),
        description="Of the files that a server process may have open, those that viewers do not "
        "get; at most half of all.",
    )
    drain_spread: float = Field(
        10.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_DRAIN_SPREAD"),
        description="Time over which the viewers of a server that goes away are told to come back, "
        "each at a moment of its own, in seconds.",
    )
    drain_linger: float = Field(
        0.0,
        ge=0,
        validation_alias=_env("LIVEJOBS_DRAIN_LINGER"),
        description="How long a server that goes away serves its viewers on, so that they can move "
        "to another one without a gap, in seconds.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        validation_alias=_env("LIVEJOBS_METRICS_TOKEN"),
        description="Bearer token that may read `/metrics`, beside scope admin; unset: none.",
    )
    metrics_local: bool = Field(
        True,
        validation_alias=_env("LIVEJOBS_METRICS_LOCAL"),
        description="Whether `/metrics` may be read without credentials from the same machine.",
    )
    token_ttl: int = Field(
        900,
        ge=1,
        validation_alias=_env("LIVEJOBS_TOKEN_TTL"),
        description="How long a token from the server is good, in seconds, unless asked otherwise.",
    )
    session_ttl: int = Field(
        12 * 3600,
        ge=60,
        validation_alias=_env("LIVEJOBS_SESSION_TTL"),
        description="How long a sign-in to the pages is good, in seconds.",
    )

    @field_validator("secrets", "allowed_origins", "tasks", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        return _split(value)

    _none_if_empty = field_validator("enqueue_rate", "metrics_token", mode="before")(none_if_empty)

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < 32 for secret in secrets):
            msg = "each secret needs at least 32 characters, e.g. from `openssl rand -hex 32`"
            raise ValueError(msg)
        return secrets

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, url: str) -> str:
        if not url.startswith(_REDIS_SCHEMES):
            msg = f"it has to begin with {', '.join(_REDIS_SCHEMES[:-1])} or {_REDIS_SCHEMES[-1]}"
            raise ValueError(msg)
        urlsplit(url).port  # noqa: B018 - one that is no number raises
        return url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        driver_url(url, 0)
        return url

    @property
    def celery_broker_url(self) -> str:
        """The broker that Celery apps made by livejobs use."""
        return self.broker_url or self.redis_url

    @property
    def sync_database_url(self) -> str:
        """`database_url` with the driver for workers and the command line."""
        return driver_url(self.database_url, 0)

    @property
    def async_database_url(self) -> str:
        """`database_url` with the driver for the server."""
        return driver_url(self.database_url, 1)


class _Current:
    """The process's settings and the hooks that `configure()` took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.overrides: dict[str, Any] = {}
        self.forced: dict[str, Any] = {}
        self.settings: Settings | None = None
        self.owner_of: OwnerOf | None = None
        self.generation = 0


_current = _Current()


def get_settings() -> Settings:
    """The settings of this process: those of `configure()`, else the environment's.

    Raises:
        SettingsError: A setting cannot be used; the message names it.
    """
    settings = _current.settings
    if settings is None:
        with _current.lock:
            settings = _current.settings = _load(_current.overrides | _current.forced)
    return settings


def configure(*, owner_of: OwnerOf | None = None, **overrides: Any) -> Settings:
    """Set livejobs up for this process; what is not given comes from the environment.

    Args:
        owner_of: Called without arguments when a job is enqueued; returns the owner's id, or None
            where it does not know one.
        **overrides: Fields of `Settings` by name, e.g. ``redis_url="redis://…"``.

    Raises:
        SettingsError: An unknown name or a value that cannot be used.
    """
    unknown = overrides.keys() - Settings.model_fields.keys()
    if unknown:
        raise SettingsError(
            f"livejobs has no setting {', '.join(sorted(unknown))}: "
            "docs/reference/settings.md lists them."
        )
    settings = _load(overrides | _current.forced)
    with _current.lock:
        _current.overrides = overrides
        _current.settings = settings
        _current.owner_of = owner_of
        _current.generation += 1
    return settings


@contextlib.contextmanager
def forced(**overrides: Any) -> Iterator[None]:
    """Hold settings, whatever `configure()` is given meanwhile; for tests."""
    before = _current.forced
    _force(before | overrides)
    try:
        yield
    finally:
        _force(before)


def _force(overrides: dict[str, Any]) -> None:
    with _current.lock:
        _current.forced = overrides
        _current.settings = None
        _current.generation += 1


def configured() -> tuple[dict[str, Any], OwnerOf | None]:
    """What `configure()` was given: the overrides and `owner_of`."""
    return _current.overrides, _current.owner_of


def reset() -> None:
    """Forget what `configure()` was given; for tests."""
    with _current.lock:
        _current.overrides = {}
        _current.settings = None
        _current.owner_of = None
        _current.generation += 1


def settings_generation() -> int:
    """Grows with each `configure()`; what was built from older settings is built anew."""
    return _current.generation


def configured_owner() -> str | None:
    """The owner that the function given to `configure(owner_of=…)` names, or None."""
    return _current.owner_of() if _current.owner_of is not None else None


def _load(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_readable(error)) from None


def _readable(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return "A setting cannot be used. " + "; ".join(lines)
