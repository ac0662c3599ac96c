"""A real Celery worker as a child process, and what it wrote."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from livejobs.settings import Settings

from .servers import child
from .waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child process the same servers."""
    return {
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "LIVEJOBS_DATA_DIR": str(settings.data_dir),
        "LIVEJOBS_SECRETS": ",".join(s.get_secret_value() for s in settings.secrets),
        "PYTHONPATH": f"{ROOT}/worker:{ROOT}/server:{ROOT}",
        "C_FORCE_ROOT": "1",  # a task takes pickle, and a container may be root
    }


@contextlib.contextmanager
def celery_worker(
    settings: Settings,
    log: Path,
    app: str = "tests.support.jobs_app",
    *,
    concurrency: int = 2,
    pool: str = "prefork",
    options: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> Iterator[int]:
    """Run a worker; yields its process id once it takes tasks."""
    command = [
        *(sys.executable, "-m", "celery", "-A", app, "worker"),
        *("--loglevel=info", f"--concurrency={concurrency}", f"--pool={pool}"),
        *("--without-gossip", "--without-mingle"),
        *options,
    ]
    with child(command, log, environment(settings) | (env or {})) as process:
        wait_until(
            lambda: process.poll() is not None or " ready." in log.read_text(),
            description="the worker is ready",
            seconds=40,
        )
        assert process.poll() is None, log.read_text()
        yield process.pid
