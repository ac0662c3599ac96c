"""The files and commands that a page of the documentation shows, to run them as written."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`((?:[\w-]+/)*(?:[\w.-]+\.(?:py|html|conf|yaml|txt)|Caddyfile|\.env))`")


def files(page: str) -> dict[str, str]:
    """The files that a page has its reader write, by their names.

    The name is the last file's in backticks in the paragraph right before the block, which ends
    with a colon. What such a paragraph adds to a file follows what the file held before.

    Args:
        page: Path below ``docs``.
    """
    found: dict[str, str] = {}
    for name, code, is_added in _files(page):
        found[name] = found.get(name, "") + "\n\n" + code if is_added else code
    return found


def write(page: str, folder: Path) -> dict[str, str]:
    """Write the files of a page into a folder, or add to those that are there; returns them."""
    for name, code, is_added in _files(page):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if is_added else "w", encoding="utf-8") as file:
            file.write("\n\n" + code if is_added else code)
    return files(page)


def _files(page: str) -> Iterator[tuple[str, str, bool]]:
    """Name and text of each block that is a file, and whether it is added to what is there."""
    text = (DOCS / page).read_text("utf-8")
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        names = _FILE.findall(before)
        if names and before.endswith(":"):
            is_added = re.search(r"\b[Aa]dd\b", before) is not None
            yield names[-1], textwrap.dedent(match[3]), is_added


def commands(page: str) -> list[str]:
    """The shell blocks of a page, in their order."""
    text = (DOCS / page).read_text("utf-8")
    return [textwrap.dedent(code) for _, kind, code in _FENCE.findall(text) if kind == "sh"]
