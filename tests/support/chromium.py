"""Programs that drive Chromium, run with Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any


def drive(program: Path, *arguments: str, seconds: float = 120) -> dict[str, Any]:
    """Run a program of Playwright's; what it printed, which is JSON."""
    node = shutil.which("node")
    assert node is not None, "the browser is driven with Node"
    done = subprocess.run(
        [node, program, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("NODE_")},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown
