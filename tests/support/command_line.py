"""The command line as a person runs it: as a process, in a folder, with a clean environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from livejobs.settings import Settings

from .waiting import wait_until

START_SECONDS = 60.0
COMMAND = (sys.executable, "-m", "livejobs_server.cli")


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without settings of livejobs, then `extra`."""
    names = {"LIVEJOBS_URL", "LIVEJOBS_API_KEY", "FORCE_COLOR"}
    for info in Settings.model_fields.values():
        names.update(map(str, getattr(info.validation_alias, "choices", ())))
    kept = {name: value for name, value in os.environ.items() if name not in names}
    # Only whole folders: the command runs in another one.
    paths = [os.path.abspath(path) for path in sys.path if path and os.path.isdir(path)]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "100"} | extra


def livejobs(
    *arguments: str, cwd: Path, timeout: float = START_SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Up:
    """A running `livejobs up` in a folder.

    Attributes:
        cwd: The folder; its data folder is `.livejobs`.
        output: All that it has written.
    """

    def __init__(self, cwd: Path, *arguments: str, **environment: str) -> None:
        self.cwd = cwd
        self.output = ""
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--port", "0", *arguments],
            cwd=cwd,
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_ready(self) -> None:
        """Return when it has said that it runs; fails where it ends instead."""
        wait_until(
            lambda: "Ctrl-C stops" in self.output or self.process.poll() is not None,
            description="up is ready",
            seconds=START_SECONDS,
        )
        assert self.process.poll() is None, self.output

    @property
    def url(self) -> str:
        """The server."""
        note = json.loads((self.cwd / ".livejobs" / "up.json").read_text("utf-8"))
        return str(note["url"])

    @property
    def api_key(self) -> str:
        """The key for trying out."""
        return (self.cwd / ".livejobs" / "api-key").read_text("utf-8").strip()

    def descendants(self) -> dict[int, str]:
        """Processes that belong to it, by their environment or folder: id and command line."""
        data_dir = self.cwd / ".livejobs"
        mark = f"LIVEJOBS_DATA_DIR={data_dir}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == self.process.pid:
                continue
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                works_there = (folder / "cwd").readlink().is_relative_to(data_dir)
                if works_there or mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = command
        return found

    def child(self, pattern: str) -> int:
        """The first process whose command line matches."""
        pids = [pid for pid, line in self.descendants().items() if re.search(pattern, line)]
        assert pids, f"no process matches {pattern!r}"
        return min(pids)

    def stop(self, number: signal.Signals = signal.SIGINT, timeout: float = 40) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 40) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def up(cwd: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    """`livejobs up`, ready; stopped at the end where the test has not done so."""
    running = Up(cwd, *arguments, **environment)
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGTERM)
        else:
            running.wait()
