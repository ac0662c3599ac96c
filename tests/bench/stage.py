"""What every measurement stands on: a Valkey, a database with jobs that run, and credentials."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from livejobs import attempts, transitions
from livejobs.database import Database, execute, migrate
from livejobs.settings import Settings
from livejobs_server import sign_token

from ..support.servers import ValkeyProcess, postgres_server
from ..support.worker import environment
from .machine import Cores
from .processes import on_cores

OWNER = "bench"
HOURS = 3600
_SECRET = "nothing-to-hide-in-what-is-only-measured"
_BATCH = 1000


def claim_of(job_id: str) -> str:
    """The name under which a job of `Stage.running_jobs` is claimed."""
    return f"bench-{job_id}"


@dataclass(frozen=True)
class Stage:
    """A Valkey and a database that this run has to itself.

    Attributes:
        cores: Whose cores are whose.
        settings: livejobs on them.
    """

    cores: Cores
    settings: Settings

    @property
    def redis_port(self) -> int:
        """Valkey's port on 127.0.0.1."""
        return int(self.settings.redis_url.rpartition(":")[2].partition("/")[0])

    @property
    def env(self) -> dict[str, str]:
        """The environment for a server or worker of livejobs."""
        return environment(self.settings) | {
            "LIVEJOBS_LEASE_SECONDS": str(self.settings.lease_seconds),
            "LIVEJOBS_LOG_LEVEL": "warning",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def token(self) -> str:
        """Credentials of the jobs' owner."""
        return sign_token(owner=OWNER, ttl_seconds=24 * HOURS, settings=self.settings)

    def running_jobs(self, count: int) -> list[str]:
        """Ids of new jobs, each claimed by a worker that is going to report."""
        ids = [str(uuid4()) for _ in range(count)]
        database = Database(self.settings)
        try:
            for start in range(0, count, _BATCH):
                with database.begin() as connection:
                    for job_id in ids[start : start + _BATCH]:
                        new = transitions.NewJob(
                            id=job_id, task="bench.led", queue="bench", message={}, owner=OWNER
                        )
                        execute(connection, transitions.create(new))
                        claim = attempts.claim(job_id, None, claim_of(job_id), 24 * HOURS)
                        execute(connection, claim)
        finally:
            database.close()
        return ids


@contextlib.contextmanager
def stage(cores: Cores, database: str = "sqlite") -> Iterator[Stage]:
    """Set it up.

    Args:
        database: sqlite or postgresql.
    """
    with contextlib.ExitStack() as stack:
        # Who ends the run ends what it has started, too.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        stack.callback(signal.signal, signal.SIGTERM, before)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livejobs-bench-")))
        valkey = ValkeyProcess()
        stack.callback(valkey.close)
        with on_cores(cores.load):
            valkey.start()
            url = f"sqlite:///{folder}/jobs.db"
            if database == "postgresql":
                url = stack.enter_context(postgres_server())
        given: dict[str, Any] = {"redis_url": valkey.url, "database_url": url}
        given |= {"data_dir": folder / "data", "secrets": _SECRET, "lease_seconds": 24.0 * HOURS}
        settings = Settings(**given)
        migrate(settings)
        yield Stage(cores, settings)
