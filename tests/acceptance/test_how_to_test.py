"""The page on testing tasks: its examples, run as they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import pages

# What a machine without any server would answer with; the examples ask none.
NOWHERE = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}


def test_examples_pass(tmp_path: Path) -> None:
    pages.write("how-to/test-your-tasks.md", tmp_path)
    shop = pages.files("how-to/mount-in-a-fastapi-app.md")
    (tmp_path / "web.py").write_text(shop["web.py"])
    (tmp_path / "shop.py").write_text(shop["shop.py"])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "livejobs", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | NOWHERE | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
