"""The memory that a long document takes in its worker, and many files in the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx

from livejobs.database import Database
from livejobs.settings import Settings
from livejobs_server import create_key
from tests.bench.documents import book, measured
from tests.support.live_server import on_sqlite
from tests.support.server import HttpServer

MOST_KB = 40_000
"""What 500 pages may take more than 5; measured are 5 to 10 MB."""

FILES, FILE_BYTES = 500, 200_000
MOST_BYTES = 20_000_000
"""What the server may take more for all of these 100 MB; measured are 1 to 2 MB."""


def test_long_document_takes_little_more_memory_than_a_short_one(tmp_path: Path) -> None:
    peaks = {}
    for pages in (5, 500):
        folder = tmp_path / str(pages)
        folder.mkdir()
        found = measured(book(pages), folder)
        assert found["pages"] == pages
        peaks[pages] = found["peak"]
    assert peaks[500] - peaks[5] < MOST_KB, peaks


def peak(pid: int) -> int:
    """Most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def parts(count: int) -> Iterator[bytes]:
    """The body of a request with so many files."""
    for number in range(count):
        name = f'name="files"; filename="{number}.txt"'.encode()
        yield b"--B\r\nContent-Disposition: form-data; %b\r\n\r\n" % name
        yield b"words " * (FILE_BYTES // 6)
        yield b"\r\n"
    yield b"--B--\r\n"


@on_sqlite
def test_files_of_a_batch_go_to_the_disk_as_they_come(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    key, _ = create_key(database, "alice", ["write"])
    headers = {"X-API-Key": key, "Content-Type": "multipart/form-data; boundary=B"}
    server = HttpServer(settings, tmp_path / "server.log")
    server.start()
    try:

        def send(count: int) -> httpx.Response:
            url = f"{server.url}/v1/documents"
            return httpx.post(url, content=parts(count), headers=headers, timeout=120)

        assert send(10).status_code == 202
        before = peak(server.pid)
        assert send(FILES).json()["files"] == FILES
        assert peak(server.pid) - before < MOST_BYTES
    finally:
        server.stop()
