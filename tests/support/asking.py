"""A process that answers questions: a line of JSON for each, and a line in answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import IO, Any


class Asked:
    """Such a process, begun as ``python -m module`` with these arguments.

    Args:
        log: Where it writes what is no answer; None: to where this process does.
        more: For `subprocess.Popen`.
    """

    def __init__(self, module: str, *arguments: str, log: IO[bytes] | None = None, **more: Any):
        self._what = " ".join((module, *arguments))
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            **more,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def ask(self, question: dict[str, Any]) -> Any:
        """What it answers; any thread may ask."""
        with self._lock:
            self._questions.write(json.dumps(question).encode() + b"\n")
            self._questions.flush()
            answer = self._answers.readline()
        assert answer, f"{self._what} died: its log says why"
        return json.loads(answer)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Let it end, as there are no more questions."""
        self._questions.close()
        self._answers.close()
        self._process.wait()
