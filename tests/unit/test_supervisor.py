"""Children of `livejobs up`: what is decided about them without starting any."""

from __future__ import annotations

import pytest

from livejobs_server.guardian import children_left
from livejobs_server.supervisor import ChildFailed, ending


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], set()),
        (["11\n", "12\n"], {11, 12}),
        (["11\n", "12\n", "-11\n"], {12}),
        (["11\n", "done\n"], set()),
        (["11\n", "-11\n", "\n"], set()),
        (["-11\n", "11\n"], {11}),
    ],
)
def test_guardian_ends_the_children_that_nobody_saw_end(lines: list[str], left: set[int]) -> None:
    assert children_left(lines) == left


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL"),
        (-250, "was killed by signal 250"),
    ],
)
def test_ending_is_told_in_words(returncode: int, words: str) -> None:
    assert ending(returncode) == words


def test_failure_names_the_child_and_keeps_its_last_words() -> None:
    failed = ChildFailed("worker", ending(-9), -9, ["one", "two"])
    assert str(failed) == "worker was killed by SIGKILL."
    assert (failed.name, failed.returncode, failed.last_lines) == ("worker", -9, ("one", "two"))
