"""Settings: from the environment, from `configure()`, and in error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from livejobs import settings as module
from livejobs.errors import SettingsError
from livejobs.settings import Settings, configure, get_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("REDIS_URL", "DATABASE_URL", "LIVEJOBS_SECRETS", "LIVEJOBS_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    module.reset()
    yield
    module.reset()


@pytest.mark.parametrize(
    ("url", "sync", "asynchronous"),
    [
        ("sqlite:///a.db", "sqlite+pysqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite+aiosqlite:////a.db", "sqlite+pysqlite:////a.db", "sqlite+aiosqlite:////a.db"),
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+psycopg://h/d", "postgresql+asyncpg://h/d"),
        (
            *("postgresql://h/d?sslmode=require", "postgresql+psycopg://h/d?sslmode=require"),
            "postgresql+asyncpg://h/d?ssl=require",
        ),
    ],
)
def test_database_url_in_any_usual_spelling(url: str, sync: str, asynchronous: str) -> None:
    settings = Settings(database_url=url)
    assert (settings.sync_database_url, settings.async_database_url) == (sync, asynchronous)


@pytest.mark.parametrize(
    ("query", "sync", "asynchronous"),
    [
        ("?ssl=require", "?sslmode=require", "?ssl=require"),
        ("?ssl=true", "?sslmode=require", "?ssl=require"),
        (
            *("?sslmode=require&channel_binding=require",) * 2,
            "?ssl=require",
        ),
        ("?connect_timeout=3", "?connect_timeout=3", ""),
        ("?prepared_statement_cache_size=0", "", "?prepared_statement_cache_size=0"),
        ("?host=/run/postgres", "?host=/run/postgres", "?host=/run/postgres"),
    ],
)
def test_query_of_the_url_is_what_each_driver_takes(
    query: str, sync: str, asynchronous: str
) -> None:
    # The password is no query, whatever it contains.
    before = "u:p?sslmode=a&ssl=b@h:5432/d"
    settings = Settings(database_url=f"postgresql://{before}{query}")
    assert settings.sync_database_url == f"postgresql+psycopg://{before}{sync}"
    assert settings.async_database_url == f"postgresql+asyncpg://{before}{asynchronous}"


def test_certificates_in_the_url_reach_both_drivers() -> None:
    settings = Settings(database_url="postgresql://h/d?sslmode=verify-full&sslrootcert=/a%20b.pem")
    sync, asynchronous = (
        make_url(url).query for url in (settings.sync_database_url, settings.async_database_url)
    )
    assert sync == {"sslmode": "verify-full", "sslrootcert": "/a b.pem"}
    assert asynchronous == {
        "ssl": "verify-full",
        "dsn": "postgresql://?sslrootcert=%2Fa%20b.pem",
    }


@pytest.mark.parametrize("url", ["mysql://h/d", "livejobs.db", ""])
def test_unknown_database_is_a_clear_error(url: str) -> None:
    with pytest.raises(SettingsError, match=r"database_url.*use sqlite:"):
        configure(database_url=url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:6379", "redis://, rediss:// or unix://"),
        ("valkey://localhost", "redis://, rediss:// or unix://"),
        ("redis://localhost:port", "Port"),
        ("redis://localhost:70000", "Port"),
        ("", "redis://, rediss:// or unix://"),
    ],
)
def test_redis_url_that_is_none_is_a_clear_error(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"redis_url.*{why}"):
        configure(redis_url=url)


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://cache:6379/3")
    monkeypatch.setenv("LIVEJOBS_SECRETS", f"{'a' * 32}, {'b' * 32}")
    monkeypatch.setenv("LIVEJOBS_TASKS", "a.*,b")
    settings = get_settings()
    assert settings.redis_url == settings.celery_broker_url == "redis://cache:6379/3"
    assert [s.get_secret_value()[0] for s in settings.secrets] == ["a", "b"]
    assert settings.tasks == ("a.*", "b")


def test_configure_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEJOBS_PORT", "9000")
    assert configure(port=9001).port == get_settings().port == 9001


def test_bad_value_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEJOBS_PORT", "many")
    with pytest.raises(SettingsError, match="LIVEJOBS_PORT"):
        get_settings()


def test_unknown_setting_is_a_clear_error() -> None:
    with pytest.raises(SettingsError, match="no setting redis"):
        configure(redis="redis://")


def test_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        configure(secrets="hunter2")
    assert "32 characters" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_secrets_are_not_shown() -> None:
    assert "a" * 32 not in repr(configure(secrets="a" * 32))


def test_owner_of_is_asked() -> None:
    configure(owner_of=lambda: "ada")
    assert module.configured_owner() == "ada"
    configure()
    assert module.configured_owner() is None


@pytest.mark.parametrize("url", ["mail.example.com", "http://mail.example.com", "smtp://", "x"])
def test_mail_server_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"(?i)smtp_url"):
        configure(smtp_url=url)


def test_mail_server_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "")
    assert get_settings().smtp_url is None
