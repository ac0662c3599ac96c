"""What the command line writes: prefixed lines of children, notes, errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, TextIO

from livejobs.logs import redact

COLOURS = {"valkey": "35", "worker": "32", "beat": "33", "server": "36", "livejobs": "1"}
"""SGR codes of the names in front of lines."""


def wants_colour(stream: IO[str]) -> bool:
    """Whether colours belong on a stream: a terminal, and nobody said no (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


class LinePrinter:
    """Writes lines with the name of who said it in front, each name in its colour.

    Args:
        names: All names that will come, for the width of the column.
        stream: Where to; default standard output.
    """

    def __init__(self, names: Sequence[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(map(len, names))
        self._colour = wants_colour(self._stream)
        self._open = True

    def __call__(self, name: str, line: str) -> None:
        """Write a line; once nobody reads the stream any more, lines are dropped."""
        if not self._open:
            return
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            prefix = f"\x1b[{COLOURS.get(name, '0')}m{prefix}\x1b[0m"
        try:
            self._stream.write(f"{prefix} {redact(line)}\n")
            self._stream.flush()
        except BrokenPipeError:
            self._open = False


def complain(message: str) -> None:
    """Say on standard error what went wrong."""
    sys.stderr.write(f"livejobs: {message}\n")


def say(text: str = "") -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
