"""Plain text and Markdown: decoded, cleaned, and cut into pieces where it is long."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from livejobs.file_kinds import HEAD_BYTES, unicode_encoding

PIECE_CHARACTERS: Final = 50_000
"""A text without pages is handed on in pieces of at most this length."""

_NEWLINE = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters and lone surrogates, which databases refuse, and soft hyphens, which would
# split words.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\ufeff\ud800-\udfff]")
# Set by many PDF programs in place of the letters, which is what people search for.
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_HEADING = re.compile(r"^ {0,3}#[ \t]+(.+?)[ \t#]*$", re.MULTILINE)


def decode(content: bytes, declared: str | None = None) -> str:
    """Text from bytes in any usual encoding; never fails.

    Args:
        content: The whole file.
        declared: The encoding that the file itself names, None where it names none.
    """
    for encoding in (unicode_encoding(content[:HEAD_BYTES]), declared, "utf-8", "cp1252"):
        if encoding is not None:
            # LookupError: an encoding that does not exist was declared.
            with suppress(UnicodeError, LookupError):
                return content.decode(encoding)
    return content.decode("latin-1")


def clean(text: str) -> str:
    r"""The text as it is stored: composed characters, no controls, ``\n`` for any line end."""
    text = _NOT_TEXT.sub("", _NEWLINE.sub("\n", text)).translate(_LIGATURES)
    return unicodedata.normalize("NFC", text)


def heading(text: str) -> str | None:
    """The first heading of the highest level in a Markdown text."""
    found = _HEADING.search(text)
    return found[1] if found else None


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most `PIECE_CHARACTERS`, cut between paragraphs where it can be."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = _cut(text, start)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int) -> int:
    end = start + PIECE_CHARACTERS
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + PIECE_CHARACTERS // 2, end)
        if found != -1:
            return found + len(separator)
    return end
