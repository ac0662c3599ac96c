"""The kinds of files that can be ingested, told by name and first bytes; pure.

A server refuses with this before it stores a file, a worker looks again before it opens one.
"""

from __future__ import annotations

import codecs
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from .errors import LivejobsError

TEXT: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
HTML: Final = "text/html"
PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

ACCEPTED: Final = MappingProxyType(
    {
        ".txt": TEXT,
        ".md": MARKDOWN,
        ".markdown": MARKDOWN,
        ".html": HTML,
        ".htm": HTML,
        ".pdf": PDF,
        ".docx": DOCX,
    }
)
"""Extension, in small letters and with its dot → media type."""

HEAD_BYTES: Final = 4096
"""How much of a file's beginning `sniff` wants."""

MAX_NAME_CHARACTERS: Final = 255

_NAMED_LIKE: Final = {
    TEXT: "a text file",
    MARKDOWN: "a Markdown file",
    HTML: "an HTML page",
    PDF: "a PDF",
    DOCX: "a Word document",
}
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# What people rename by mistake.
_SIGNATURES: Final = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (_OLD_OFFICE, "an old or protected Office file"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "a compressed archive"),
)
_CONTENT: Final = {PDF: "a PDF", DOCX: "a ZIP archive"}
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # UTF-32's mark begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TAB: Final = 9
_PDF_HEADER_BYTES: Final = 1024  # readers allow rubbish before the header, up to here


class IngestError(LivejobsError):
    """A file that cannot be ingested; the message is for the person who sent it.

    Attributes:
        code: `unsupported_type`, `type_mismatch`, `empty_file`, `no_text`, `encrypted_file`,
            `broken_file`, `file_too_large`, `zip_bomb`, `path_in_name`, `upload_missing` or
            `unknown_language`.
        message: A sentence that says what is wrong and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        # Both are the exception's args, so that it survives pickling between processes.
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


def sniff(head: bytes, filename: str) -> str:
    """The media type of a file that begins with `head`.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of a shorter one.
        filename: Its name; the extension must agree with the content.

    Raises:
        IngestError: Of a kind that is not accepted (`unsupported_type`), empty, or its content is
            something else than its name says (`type_mismatch`).
    """
    name = document_name(filename)
    media_type = kind_of(name)
    if media_type is None:
        raise IngestError(
            "unsupported_type",
            f"{name} is of a kind that cannot be read: send {', '.join(ACCEPTED)}.",
        )
    if not head:
        raise IngestError("empty_file", f"{name} is empty: see whether it was saved, and send it.")
    if media_type == DOCX and head.startswith(_OLD_OFFICE):
        raise IngestError(
            "encrypted_file",
            f"{name} is protected by a password, or in Word's old format: "
            "save it again as .docx without a password.",
        )
    if media_type == PDF and b"%PDF-" in head[:_PDF_HEADER_BYTES]:
        return media_type
    found = _content(head)
    if found != _CONTENT.get(media_type):
        raise IngestError(
            "type_mismatch",
            f"{name} is named like {_NAMED_LIKE[media_type]}, but its content is "
            f"{found or 'plain text'}: send it under its right name.",
        )
    return media_type


def kind_of(name: str) -> str | None:
    """The media type that a file's name says; None: of a kind that is not accepted."""
    return ACCEPTED.get(PurePosixPath(name).suffix.lower())


def check_name(filename: str) -> None:
    """Refuse the name of an upload that leads into folders.

    Two files of one name in different folders would else become one document.

    Raises:
        IngestError: It does (`path_in_name`).
    """
    if "/" in filename or "\\" in filename:
        name = document_name(filename)
        raise IngestError(
            "path_in_name",
            f"A file was sent under a path that ends with {name}: send it under its name alone.",
        )


def document_name(filename: str) -> str:
    """The name a document goes by: the last part of a path, fit to be stored and shown."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in last if letter.isprintable()).strip()
    stem, dot, extension = name.rpartition(".")
    too_long = len(name) - MAX_NAME_CHARACTERS
    if too_long > 0:
        # The extension is kept: it is half of what tells the kind.
        name = f"{stem[:-too_long]}{dot}{extension}" if too_long < len(stem) else name[:-too_long]
    return name or "unnamed"


def unicode_encoding(head: bytes) -> str | None:
    """The Unicode encoding that a text shows by its byte order mark or its zeros, else None."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[0::2], head[1::2]
    # UTF-16 without a mark: much of a text in a Latin script has zeros as high bytes, and low bytes
    # that are no control characters.
    if odd.count(0) > 0.4 * len(odd) and min(even) >= _TAB:
        return "utf-16-le"
    if even.count(0) > 0.4 * len(even) and min(odd, default=0) >= _TAB:
        return "utf-16-be"
    return None


def _content(head: bytes) -> str | None:
    """What the bytes are, None for text."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    return "no text" if b"\0" in head and unicode_encoding(head) is None else None
