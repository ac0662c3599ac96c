"""The tutorial as it is written: its code and commands, with the wheel, its page in Chromium."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.chromium import drive
from tests.support.wheel import run, running_up

PAGE = "tutorial/first-job.md"
DRIVER = Path(__file__).with_name("tutorial_page.mjs")


@pytest.mark.timeout(600)
def test_tutorial_leads_to_a_live_bar(commands: Path, tmp_path: Path) -> None:
    install, start, test = pages.commands(PAGE)
    (line,) = [line for line in install.splitlines() if line.startswith("pip ")]
    assert line == 'pip install "/path/to/livejobs[embedded]"  # where your clone is'
    (command,) = start.splitlines()
    written = pages.write(PAGE, tmp_path)
    assert set(written) == {"tasks.py", "web.py", "page.html", "test_tasks.py"}
    words = shlex.split(command)
    assert words[0] == "livejobs"
    with running_up([str(commands / "livejobs"), *words[1:]], tmp_path) as url:
        shown = drive(DRIVER, url)
    seen = shown.pop("seen")
    assert shown.pop("idle") == {"text": "", "isMoving": False, "status": None}
    assert [1, "pending", 3] in seen, "the retry, where it had come to"
    assert {current for attempt, status, current in seen if attempt == 1} >= {1, 2, 3}
    assert any(status == "processing" for attempt, status, _ in seen if attempt == 2)
    assert shown == {
        "percent": "100 %",
        "label": "Baking",
        "log": [f"loaf {number} is out of the oven" for number in range(1, 7)],
        "mistakes": [],
    }
    assert "python -m pytest" in test.splitlines()
    assert "1 passed" in run(commands / "python", "-m", "pytest", cwd=tmp_path)
