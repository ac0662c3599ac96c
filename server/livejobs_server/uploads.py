"""Files that were sent with a request, and what becomes of them.

Each lies in the folder of uploads under a name of our own; what its sender calls it never becomes a
path. Until `keep` it has a temporary name, and it is gone when the request ends without that.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from livejobs.settings import Settings
from livejobs.uploads import upload_folder

INGEST_TASK: Final = "rag.ingest"
"""The task that takes uploads, by name: the server has no code of it."""
INGEST_MANY_TASK: Final = "rag.ingest_many"
"""The task that takes a list of uploads."""
BATCH_TASK: Final = "llm.batch"
"""The task that takes files of prompts."""
FIELD: Final = "files"
FILES_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "string",
                                "contentMediaType": "application/octet-stream",
                            },
                            "description": "Text, Markdown, HTML, PDF or DOCX files.",
                        }
                    },
                }
            }
        },
    }
}
"""The body of a request with files, for the OpenAPI document."""
TEMPORARY: Final = ".part"
ABANDONED_SECONDS: Final = 24 * 3600.0
"""A temporary file this old was left by a server that died."""


@dataclass(slots=True)
class Upload:
    """One file of the request.

    Attributes:
        name: What its sender calls it, fit to be shown.
        size: In bytes.
        sha256: Of its content, hex.
        path: Where it lies now.
        kept: It stays when the request ends.
    """

    name: str
    path: Path
    size: int = 0
    sha256: str = ""
    kept: bool = False

    @property
    def suffix(self) -> str:
        """The extension, small letters; one of those that are accepted."""
        return Path(self.name).suffix.lower()

    @property
    def sent(self) -> tuple[str, int]:
        """Name and size of the file, for `add_uploads`."""
        return self.path.name, self.size

    def keep(self, name: str) -> None:
        """Give the file its final name; from now on it stays."""
        self.path = self.path.rename(self.path.with_name(name))
        self.kept = True


def keep_uploads(uploads: list[Upload], nonce: str) -> None:
    """Keep all files of a request, under names that are the same where it is repeated."""
    for number, upload in enumerate(uploads):
        upload.keep(f"{nonce}-{number}{upload.suffix}")


def keep_list(uploads: list[Upload], nonce: str, settings: Settings) -> Upload:
    """A file that lists the kept ones, for the worker: on each line `upload` and `name`."""
    name = f"{nonce}.jsonl"
    listed = Upload(name, upload_folder(settings) / name, kept=True)
    with listed.path.open("wb") as file:
        for upload in uploads:
            line = {"upload": upload.path.name, "name": upload.name}
            listed.size += file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return listed


def take_back(uploads: list[Upload]) -> None:
    """Delete files though they were kept: nothing came of their request."""
    for upload in uploads:
        upload.path.unlink(missing_ok=True)


class Most(NamedTuple):
    """What a request may send.

    Attributes:
        files: How many.
        size: Of all of them together, in bytes.
        setting: What sets their number.
    """

    files: int
    size: int
    setting: str


def clear_abandoned(settings: Settings) -> None:
    """Delete temporary files that servers which died left behind."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in upload_folder(settings).glob(f"*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
