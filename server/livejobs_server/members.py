"""One of several server processes on a port: which it is, and what it shares with the others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Member:
    """A server process of a group.

    Attributes:
        number: Which it is, from 1.
        of: How many there are.
        socket: Descriptor of the socket it listens on.
        alive: Descriptor of a pipe that ends with the process that started it.
        folder: Where each has a socket of its own for the others, see `path`.
    """

    number: int
    of: int
    socket: int
    alive: int
    folder: str

    def path(self, number: int | None = None) -> Path:
        """The socket on which a member tells others its numbers; by default its own."""
        return Path(self.folder) / f"{self.number if number is None else number}.sock"

    def to_text(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `to_text` wrote."""
        return cls(**json.loads(text))

    def stop_with_parent(self) -> None:
        """Ask this process to stop when the one that started it is gone, however it went."""
        threading.Thread(target=self._watch, name="livejobs-parent", daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            # Nothing is ever written.
            os.read(self.alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)


_this: Member | None = None


def become(member: Member) -> None:
    """This process is that member from now on."""
    global _this
    _this = member


def this_member() -> Member | None:
    """Which one this process is; None: it is alone."""
    return _this
