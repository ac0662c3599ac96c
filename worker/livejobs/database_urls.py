"""Addresses of databases, as people write them and as each driver takes them."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode

_DRIVERS = {
    "sqlite": ("sqlite+pysqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+asyncpg"),
}
_SSL_MODES = {
    "true": "require",
    "1": "require",
    "on": "require",
    "false": "disable",
    "0": "disable",
}
"""Switches that some drivers know in place of libpq's names."""
_ASYNCPG_ONLY = frozenset(
    (
        *("prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size"),
        *("max_cached_statement_lifetime", "max_cacheable_statement_size", "server_settings"),
        *("command_timeout", "timeout", "direct_tls", "async_fallback"),
    )
)
_LIBPQ_ONLY = frozenset(
    (
        *("channel_binding", "connect_timeout", "gssencmode", "gssdelegation", "sslcompression"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("tcp_user_timeout", "require_auth", "requirepeer", "requiressl", "sslsni"),
        *("sslcertmode", "sslcrldir", "hostaddr", "client_encoding", "load_balance_hosts"),
        *("min_protocol_version", "max_protocol_version", "fallback_application_name"),
    )
)
"""What a connection works without; asyncpg has no such options."""
_IN_DSN = frozenset(
    (
        *("sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("application_name", "options"),
    )
)
"""What asyncpg takes in a DSN of its own only."""
_SPELLINGS = {"postgres": "postgresql", "pgsql": "postgresql", "sqlite3": "sqlite"}


def driver_url(url: str, driver: int) -> str:
    """The URL of a database for one of the drivers.

    Args:
        url: In any usual spelling.
        driver: 0: the one for workers, psycopg or pysqlite; 1: the one for the server.

    Raises:
        ValueError: It is of no database that livejobs knows.
    """
    scheme, separator, rest = url.partition("://")
    name = scheme.partition("+")[0].lower()
    name = _SPELLINGS.get(name, name)
    if not separator or name not in _DRIVERS:
        raise ValueError(
            f"{scheme!r} is not a database livejobs knows: "
            "use sqlite:///file.db or postgresql://user:password@host/name"
        )
    if name == "postgresql":
        rest = _with_query_of(driver, rest)
    return f"{_DRIVERS[name][driver]}://{rest}"


def _with_query_of(driver: int, rest: str) -> str:
    """`rest` of a PostgreSQL URL with the query as libpq (0) or asyncpg (1) takes it.

    All before the query, a password with a question mark too, stays as it is.
    """
    match = re.fullmatch(r"((?:[^:/@]*(?::[^@]*)?@)?[^?]*)\?(.*)", rest, re.DOTALL)
    if match is None:
        return rest
    before, query = match.groups()
    kept, in_dsn = [], []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("ssl", "sslmode"):
            kept.append(("ssl" if driver else "sslmode", _SSL_MODES.get(value.lower(), value)))
        elif driver and name in _IN_DSN:
            in_dsn.append((name, value))
        elif driver and name == "dbname":
            kept.append(("database", value))
        elif name not in (_LIBPQ_ONLY if driver else _ASYNCPG_ONLY):
            kept.append((name, value))
    if in_dsn:
        kept.append(("dsn", f"postgresql://?{urlencode(in_dsn, quote_via=quote)}"))
    return f"{before}?{urlencode(kept, quote_via=quote, safe='/')}" if kept else before
