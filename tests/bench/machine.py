"""The machine that is measured on: its cores, and what a process used of it."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

KB = 1024


@dataclass(frozen=True)
class Cores:
    """Which cores are whose.

    Attributes:
        server: The one core of the server that is measured.
        load: All others: load client, Redis, publisher. The same core where there is only one.
    """

    server: frozenset[int]
    load: frozenset[int]

    @property
    def are_apart(self) -> bool:
        """Whether the server has its core to itself."""
        return not self.server & self.load


def share_cores() -> Cores:
    """The last core for the server, the others for the load."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(cores[-1:]), frozenset(cores[:-1] or cores))


def file_limit() -> int:
    """Files that one process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def described() -> dict[str, str]:
    """The machine, as the head of a table names it."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "files": str(file_limit()),
    }


def family(pid: int) -> list[int]:
    """A process and all that it started, as far as they run."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # After the command's name, which may hold anything: state and parent.
                fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its children, in seconds.

    From the scheduler's own account in nanoseconds, thread by thread; the counts of
    `/proc/<pid>/stat` are ticks of 10 ms.
    """
    spent = 0
    for member in family(pid):
        for task in Path(f"/proc/{member}/task").iterdir():
            spent += int((task / "schedstat").read_text("ascii").split()[0])
    return spent / 1e9


def memory_bytes(pid: int) -> int:
    """Memory of a process with its children, in bytes; what they share is counted once."""
    kilobytes = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * KB


def open_files(pid: int) -> int:
    """Files that a process with its children has open, sockets among them."""
    return sum(len(list(Path(f"/proc/{member}/fd").iterdir())) for member in family(pid))
