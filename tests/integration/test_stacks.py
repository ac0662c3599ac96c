"""The folders in which workers answer where their code stands."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from livejobs.settings import Settings
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker


def is_ready(folder: Path) -> bool:
    """Whether a process of the pool answers there."""
    return any(file.name.isdigit() for file in folder.iterdir())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_folder_of_a_killed_worker_is_removed_by_the_next(
    settings: Settings, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (temporary / "livejobs-other").mkdir()
    env = {"TMPDIR": str(temporary)}

    def folders() -> set[Path]:
        return set(temporary.glob("livejobs-stacks-*"))

    with celery_worker(settings, tmp_path / "living.log", concurrency=1, env=env):
        (living,) = folders()
        with celery_worker(settings, tmp_path / "killed.log", concurrency=1, env=env) as pid:
            (killed,) = folders() - {living}
            wait_until(lambda: is_ready(killed), description="its process is ready")
            os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z",
                description="the worker has ended",
            )
        assert folders() == {living, killed}
        with celery_worker(settings, tmp_path / "next.log", concurrency=1, env=env):
            (other,) = folders() - {living}
            assert other != killed
            wait_until(lambda: is_ready(other), description="its process is ready")
    assert folders() == set()
    assert (temporary / "livejobs-other").is_dir()
