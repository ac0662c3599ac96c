"""The built wheel, and commands run as a stranger runs them: outside of the clone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .servers import free_port
from .waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def strangers_environment() -> dict[str, str]:
    """This process's environment without anything that is livejobs', Python's or the tests'."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LIVEJOBS_", "PYTHON", "COVERAGE", "COV_", "PYTEST_"))
        and name not in {"REDIS_URL", "DATABASE_URL", "CELERY_BROKER_URL", "VIRTUAL_ENV"}
    }


def run(*command: str | Path, cwd: Path, seconds: float = 300) -> str:
    """Run a command with a clean environment; its output, which is shown where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=strangers_environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@contextlib.contextmanager
def running_up(command: list[str], folder: Path, **more: str) -> Iterator[str]:
    """`livejobs up`, in a folder and on a port of its own; yields its URL once it is ready.

    Args:
        more: For its environment.
    """
    port = free_port()
    log = folder / "up.log"
    environment = strangers_environment() | {"LIVEJOBS_PORT": str(port)} | more
    with log.open("wb") as output:
        up = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        wait_until(
            lambda: up.poll() is not None or "Ctrl-C stops" in log.read_text(),
            description="up is ready",
            seconds=150,
        )
        assert up.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        up.terminate()
        assert up.wait(60) == 0, log.read_text()


def built_wheel(folder: Path) -> Path:
    """The wheel of the clone, built into `folder` unless another process has done that."""
    with _alone_in(folder):
        found = list(folder.glob("*.whl"))
        if not found:
            build: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
            run(*build, "--outdir", folder, ROOT, cwd=folder)
            found = list(folder.glob("*.whl"))
    return found[0]


def venv_with(wheel: Path, folder: Path) -> Path:
    """The commands of an empty venv with the wheel, its extras and pytest; made once."""
    with _alone_in(folder):
        if not (folder / "made").exists():
            run(sys.executable, "-m", "venv", folder, cwd=folder)
            python: str | Path = folder / "bin" / "python"
            pip = [python, "-m", "pip", "--disable-pip-version-check"]
            pinned: list[str | Path] = ["--constraint", ROOT / "constraints.txt"]
            # Compiling what is never imported would take longer than all that is run.
            run(
                *pip,
                "install",
                "-q",
                "--no-compile",
                *pinned,
                f"{wheel}[embedded]",
                "pytest",
                cwd=folder,
            )
            (folder / "made").touch()
    return folder / "bin"


class _alone_in:
    """Only one of the tests' processes is inside at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
