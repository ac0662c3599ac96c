"""The folder in which `livejobs up` keeps what belongs to one installation on one machine.

It holds the database and the embedded Valkey's files unless others are given, uploads, generated
secrets, and while `up` runs a note by which the other commands find it. Only its owner reads it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from livejobs.errors import LivejobsError

LOCK_PATIENCE_SECONDS = 25.0
"""How long to wait for what a killed `up` left behind, which its guardian is ending."""

_LOCK_POLL_SECONDS = 0.2


class DataDirUnusable(LivejobsError):
    """The folder cannot be made, read or written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"The data folder {path} cannot be used ({error.strerror or error}): "
            "choose another by --data-dir or LIVEJOBS_DATA_DIR."
        )


class DataDirInUse(LivejobsError):
    """Another `livejobs up` uses the folder.

    Attributes:
        pid: Its process id, None where it is not known.
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        self.pid = pid
        who = "Another `livejobs up`" + (f" (process {pid})" if pid else "")
        super().__init__(
            f"{who} is running with the data folder {path}: stop it, or choose another folder by "
            "--data-dir."
        )


@dataclass(frozen=True, slots=True)
class Running:
    """What the other commands need to know of a running `up`.

    Attributes:
        pid: Its process id.
        url: The server.
        redis_url: Its Redis.
        database_url: Its database.
    """

    pid: int
    url: str
    redis_url: str
    database_url: str


class DataDir:
    """The folder and the files in it.

    Args:
        path: The folder; it is made where it is missing.

    Raises:
        DataDirUnusable: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DataDirUnusable(self.path, error) from error

    @property
    def database_url(self) -> str:
        """The database to use where no other is given."""
        return f"sqlite:///{self.path / 'livejobs.db'}"

    @asynccontextmanager
    async def lock(self, tell: Callable[[str], None]) -> AsyncIterator[int]:
        """Claim the folder for this process and its guardian.

        Args:
            tell: Gets a line when there is something to wait for.

        Yields:
            The descriptor of the lock's file: whoever holds it open holds the claim.

        Raises:
            DataDirInUse: Somebody else has it.
            DataDirUnusable: The lock's file cannot be opened.
        """
        try:
            descriptor = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirUnusable(self.path, error) from error
        try:
            await self._claim(descriptor, tell)
            yield descriptor
        finally:
            os.close(descriptor)

    async def _claim(self, descriptor: int, tell: Callable[[str], None]) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        told = False
        while not _try_lock(descriptor):
            holder = _holder(descriptor)
            if holder is None or _is_alive(holder) or time.monotonic() > deadline:
                raise DataDirInUse(self.path, holder)
            if not told:
                tell("waiting for the processes of an `up` that was killed to end")
                told = True
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def secret(self, name: str) -> str:
        """A secret of 256 bits, made at the first call and kept under this name."""
        return self.keep(name, lambda: secrets.token_hex(32))

    def keep(self, name: str, make: Callable[[], str]) -> str:
        """What is kept under a name; made, and stored for its owner only, where it is missing."""
        kept = self.read(name)
        if kept is None:
            kept = make()
            self.store(name, kept)
        return kept

    def read(self, name: str) -> str | None:
        """What is kept under a name, None where nothing is."""
        try:
            return (self.path / name).read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataDirUnusable(self.path, error) from error

    def store(self, name: str, text: str) -> None:
        """Keep a text under a name, readable by its owner only; all of it or nothing."""
        path = self.path / name
        fresh = path.with_name(f".{name}.{os.getpid()}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            fresh.replace(path)
        except OSError as error:
            raise DataDirUnusable(self.path, error) from error

    def note_running(self, running: Running) -> None:
        """Leave the note by which other commands find this `up`."""
        self.store("up.json", json.dumps(asdict(running)))

    def forget_running(self) -> None:
        """Take the note away."""
        (self.path / "up.json").unlink(missing_ok=True)


def find_running(path: Path) -> Running | None:
    """The `up` that runs with this data folder, if one does."""
    try:
        running = Running(**json.loads((path / "up.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return running if _is_alive(running.pid) else None


def find_key(path: Path) -> str | None:
    """The API key for trying out that `up` made in this folder, if it did."""
    return find_kept(path, "api-key")


def find_kept(path: Path, name: str) -> str | None:
    """What `up` keeps under a name in this folder, if it does."""
    try:
        return (path / name).read_text("utf-8").strip() or None
    except OSError:
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _try_lock(descriptor: int) -> bool:
    # Only Unix has it; the commands that merely look for a running `up` work elsewhere too.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    """The process that claimed the lock last, as it wrote into the file."""
    text = os.pread(descriptor, 20, 0).strip()
    return int(text) if text.isdigit() else None
