"""What a document is between being read and being split."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from zipfile import BadZipFile

from livejobs.file_kinds import IngestError

MAX_TITLE_CHARACTERS: Final = 300

DAMAGE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What the readers of binary formats raise on a damaged file.

Everything is in here that a wrong byte can bring about, and nothing that comes from outside: a time
limit, a cancelled job or a full memory is no fault of the file.
"""


class Page(NamedTuple):
    """A page of a document, or a piece of one that has no pages.

    Attributes:
        number: From 1; None where the kind of document has no pages.
        text: Cleaned text; empty on a page of pictures.
    """

    number: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is being read.

    Attributes:
        media_type: One of `livejobs.documents.ACCEPTED`.
        title: Its own title, else the file's name without extension.
        pages: Read while it is iterated, once; raises `IngestError` where the file turns out to be
            damaged, and after the last page if none had any text.
        total: How many pages there will be; None: not known before.
    """

    media_type: str
    title: str
    pages: Iterator[Page]
    total: int | None


def broken(name: str, where: str = "") -> IngestError:
    """The error for a file that its program would not open either.

    Args:
        name: The file's name.
        where: Where in it, like "on page 7".
    """
    place = f" {where}" if where else ""
    return IngestError(
        "broken_file",
        f"{name} is damaged{place} and cannot be read: save it anew and send that.",
    )


def first_line(*candidates: str | None) -> str | None:
    """The first candidate that has text, as one short line; None if none has."""
    for candidate in candidates:
        line = " ".join((candidate or "").split())
        if line:
            return line[:MAX_TITLE_CHARACTERS]
    return None
