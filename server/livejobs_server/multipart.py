"""Files of a multipart request, checked and counted while they stream to the disk.

A file is refused by its name and first bytes before anything of it is stored, at the first byte
past the limit, and by what it says of itself when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from livejobs.archives import check_document
from livejobs.file_kinds import HEAD_BYTES, check_name, document_name, sniff
from livejobs.settings import Settings
from livejobs.uploads import upload_folder

from .problems import ApiProblem
from .uploads import FIELD, TEMPORARY, Most, Upload

_OVERHEAD_BYTES: Final = 64 * 1024  # boundaries and headers around one file
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.asynccontextmanager
async def receive_uploads(
    request: Request, settings: Settings, most: Most | None = None
) -> AsyncIterator[list[Upload]]:
    """All files of a request: ``async with receive_uploads(…) as uploads``.

    On leaving, those that were not kept are deleted.

    Args:
        most: What it may send; None: `max_upload_files` of `max_upload_bytes` each.

    Raises:
        ApiProblem: The request is not as documented, a file is too large, there are too many, or
            the disk is full.
        IngestError: A file is empty, of a kind that is not accepted, or should not be opened.
    """
    folder = upload_folder(settings)
    if most is None:
        files = settings.max_upload_files
        most = Most(files, files * settings.max_upload_bytes, "LIVEJOBS_MAX_UPLOAD_FILES")
    receiver = _Receiver(_boundary(request), folder, settings, most)
    try:
        with _storage_problems():
            await run_in_threadpool(folder.mkdir, parents=True, exist_ok=True)
            async for chunk in request.stream():
                await run_in_threadpool(receiver.feed, chunk)
            receiver.finish()
        yield receiver.uploads
    except ClientDisconnect:
        raise ApiProblem("malformed_body", "The upload broke off.") from None
    finally:
        await run_in_threadpool(receiver.discard)


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiProblem(
            "malformed_body", f"Send the files as multipart/form-data, in the field {FIELD}."
        )
    return boundary


@contextlib.contextmanager
def _storage_problems() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ApiProblem("storage_full") from error
        raise


@dataclass(slots=True)
class _Part:
    """The part of the body that is being read."""

    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    upload: Upload | None = None
    head: bytearray = field(default_factory=bytearray)
    file: IO[bytes] | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


class _Receiver:
    """Takes the body apart and writes its files; runs in threads, one call at a time."""

    def __init__(self, boundary: bytes, folder: Path, settings: Settings, most: Most) -> None:
        self.uploads: list[Upload] = []
        self._names: set[str] = set()
        self._folder = folder
        self._settings = settings
        self._part = _Part()
        self._received = 0
        self._most = most
        self._limit = most.size + most.files * _OVERHEAD_BYTES
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise ApiProblem("malformed_body", str(error)) from error

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        self._received += len(chunk)
        if self._received > self._limit:
            raise ApiProblem("too_many_files", "The body is longer than its files may be.")
        if not chunk:
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ApiProblem("malformed_body", f"This is no multipart body: {error}") from error

    def finish(self) -> None:
        """The body is complete."""
        if not self._ended:
            raise ApiProblem("malformed_body", "The multipart body broke off, or is none.")
        if not self.uploads:
            raise _invalid("send at least one file")

    def discard(self) -> None:
        """Delete the files that were not kept."""
        if self._part.file is not None:
            # What could not be written because the disk is full cannot be flushed either.
            with contextlib.suppress(OSError):
                self._part.file.close()
        for upload in self.uploads:
            if not upload.kept:
                upload.path.unlink(missing_ok=True)

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _on_header_end(self) -> None:
        part = self._part
        if part.header_name.lower() == b"content-disposition":
            part.disposition = part.header_value
        part.header_name = part.header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise _invalid("every part of the body must be a file in this field")
        if len(self.uploads) >= self._most.files:
            raise ApiProblem(
                "too_many_files",
                f"Send at most {self._most.files} files at once ({self._most.setting}).",
            )
        sent_as = _decoded(options[b"filename"])
        check_name(sent_as)
        name = document_name(sent_as)
        if name in self._names:
            raise _invalid(f"two files are called {name}: give each a name of its own")
        self._names.add(name)
        self._part.upload = Upload(name, self._folder / f"{uuid4().hex}{TEMPORARY}")
        self.uploads.append(self._part.upload)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part, upload = self._part, self._part.upload
        assert upload is not None
        upload.size += end - start
        if upload.size > self._settings.max_upload_bytes:
            raise ApiProblem(
                "file_too_large",
                f"{upload.name} is larger than {self._settings.max_upload_bytes} bytes.",
            )
        if part.file is not None:
            self._write(data[start:end])
            return
        part.head += data[start:end]
        if len(part.head) >= HEAD_BYTES:
            self._open()

    def _on_part_end(self) -> None:
        part, upload = self._part, self._part.upload
        assert upload is not None
        if part.file is None:
            self._open()
        assert part.file is not None
        part.file.flush()
        # What was answered with 202 outlives a power cut.
        os.fsync(part.file.fileno())
        part.file.close()
        part.file = None
        upload.sha256 = part.digest.hexdigest()
        check_document(upload.path, upload.name)

    def _on_end(self) -> None:
        self._ended = True

    def _open(self) -> None:
        """Look at the beginning of the file; only if it is welcome, store it."""
        part, upload = self._part, self._part.upload
        assert upload is not None
        sniff(bytes(part.head[:HEAD_BYTES]), upload.name)
        part.file = upload.path.open("xb")
        self._write(bytes(part.head))
        part.head.clear()

    def _write(self, data: bytes) -> None:
        assert self._part.file is not None
        self._part.file.write(data)
        self._part.digest.update(data)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _invalid(message: str) -> ApiProblem:
    return ApiProblem(
        "invalid_request", f"{FIELD}: {message}", errors=[{"field": FIELD, "message": message}]
    )
