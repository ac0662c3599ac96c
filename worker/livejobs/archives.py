"""What a ZIP archive would unpack to, told by its directory before anything is unpacked.

A Word document is such an archive. A server refuses with this before it accepts one, a worker looks
again before it opens one. An entry that lies about its size fails when it is read: `zipfile` reads
no more of it than it says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile, ZipInfo

from .file_kinds import DOCX, IngestError, kind_of

MAX_UNPACKED_BYTES: Final = 100 * 1024 * 1024
"""What a document may hold when unpacked; all of it is in memory at a time."""
MAX_RATIO: Final = 200
"""How many times its packed size an entry may have; the XML of documents has 10 to 50 times."""
SMALL_BYTES: Final = 1024 * 1024
"""An entry of no more than this may have any ratio."""
MAX_ENTRIES: Final = 10_000
"""A document has some dozens, and one for each of its pictures."""
MAX_DIRECTORY_BYTES: Final = 4 * 1024 * 1024
"""The directory at the archive's end; in memory it takes some ten times that."""

_END: Final = b"PK\x05\x06"  # the record that says where the directory is
_END_BYTES: Final = 22
_MAX_COMMENT_BYTES: Final = 65_535
_LOCATOR: Final = b"PK\x06\x07"  # before it, where the archive is of the larger format
_LOCATOR_BYTES: Final = 20


def check_document(path: Path, name: str) -> None:
    """Refuse a file whose kind is an archive that should not be opened; others pass.

    Args:
        path: The file.
        name: What its sender calls it.

    Raises:
        IngestError: Damaged (`broken_file`), no Word document (`type_mismatch`), too large when
            unpacked (`file_too_large`), or made to overwhelm who unpacks it (`zip_bomb`).
    """
    if kind_of(name) != DOCX:
        return
    try:
        _check_directory(path, name)
        with ZipFile(path) as archive:
            _check_entries(archive.infolist(), name)
    except (BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise IngestError(
            "broken_file", f"{name} is damaged and cannot be read: save it anew and send that."
        ) from error


def _check_directory(path: Path, name: str) -> None:
    """Look at how large the directory is, before it is read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT_BYTES - _LOCATOR_BYTES))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0:
        raise BadZipFile("it has no directory")
    entries, directory_bytes = struct.unpack_from("<HL", tail, end + 10)
    large = tail[max(0, end - _LOCATOR_BYTES) : end].startswith(_LOCATOR)
    if large or entries > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise _bomb(name, "has more parts than a document can have")


def _check_entries(entries: Sequence[ZipInfo], name: str) -> None:
    if not any(entry.filename.startswith("word/") for entry in entries):
        raise IngestError(
            "type_mismatch",
            f"{name} is named like a Word document, but its content is something else: "
            "send it under its right name.",
        )
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise IngestError(
            "file_too_large",
            f"{name} holds more than {MAX_UNPACKED_BYTES // 1024**2} MB when unpacked: "
            "send it in parts, or without its pictures.",
        )
    for entry in entries:
        if entry.file_size > SMALL_BYTES and entry.file_size > MAX_RATIO * entry.compress_size:
            raise _bomb(name, f"unpacks to more than {MAX_RATIO} times its size")


def _bomb(name: str, what: str) -> IngestError:
    return IngestError(
        "zip_bomb", f"{name} {what}, so it is not opened: save it anew in Word and send that."
    )
