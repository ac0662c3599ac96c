"""Files over REST: accepted as jobs, or refused before anything of them is kept."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from livejobs import reads
from livejobs.database import AsyncDatabase
from livejobs.dispatch import enqueue
from livejobs.documents import NewChunk, NewDocument, replace_document
from livejobs.errors import DatabaseUnavailable
from livejobs.settings import Settings, configure
from livejobs.statements import jobs
from livejobs_server import create_app, create_key
from livejobs_server.api import rag
from livejobs_server.uploads import clear_abandoned
from tests.support.clients import MakeClient, changed, client_of, code_of, running

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

URL = "/v1/rag/ingest"
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 100


def files(*named: tuple[str, bytes]) -> list[Any]:
    return [("files", (name, content)) for name, content in named]


def kept(settings: Settings) -> list[str]:
    folder = settings.data_dir / "uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def count(database: AsyncDatabase) -> int:
    async with database.engine.connect() as connection:
        number: int = (
            await connection.execute(select(func.count()).select_from(jobs))
        ).scalar_one()
        return number


async def test_each_file_becomes_a_job_and_is_kept_as_it_came(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, settings: Settings
) -> None:
    sent = {"a.txt": b"Hello", "größe 1.PDF": PDF, "notes.md": b"# x\n" * 50_000}
    response = await alice.post(URL, files=files(*sent.items()))
    assert response.status_code == 202, response.text
    made = response.json()["jobs"]
    assert [job["name"] for job in made] == list(sent)
    for job in made:
        assert job["status"] == "pending"
        row = await async_database.read(reads.job(job["job_id"]))
        assert row is not None
        assert (row.task, row.owner) == ("rag.ingest", "alice")
        assert row.tags == {"document": job["name"]}
        assert job["name"] in row.message["body"].encode().decode("unicode_escape")
        (path,) = [name for name in kept(settings) if name in row.message["body"]]
        assert (settings.data_dir / "uploads" / path).read_bytes() == sent[job["name"]]
    assert len(kept(settings)) == 3


async def test_token_of_an_upload_opens_its_job(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    (job,) = (await alice.post(URL, files=files(("a.txt", b"x")))).json()["jobs"]
    nobody.headers["Authorization"] = f"Bearer {job['token']}"
    assert (await nobody.get(f"/v1/jobs/{job['job_id']}")).json()["task"] == "rag.ingest"


NAMES = [
    ("C:\\docs\\a.txt", "a.txt"),  # as old browsers on Windows send it
    ("x" * 400 + ".txt", "x" * 251 + ".txt"),
]


async def test_name_of_a_file_is_never_that_of_its_upload(
    alice: httpx.AsyncClient, settings: Settings
) -> None:
    for sent, shown in NAMES:
        response = await alice.post(URL, files=files((sent, b"x")))
        assert response.status_code == 202, response.text
        assert response.json()["jobs"][0]["name"] == shown
    assert len(kept(settings)) == len(NAMES)
    assert all(name.removesuffix(".txt")[:32].isalnum() for name in kept(settings))


async def test_path_in_the_name_of_a_file_is_refused(
    alice: httpx.AsyncClient, settings: Settings
) -> None:
    for sent in ("../../etc/passwd.txt", "/etc/cron.d/x.md", "docs/a.txt", "..\\a.txt"):
        response = await refused(
            alice, settings, 422, "path_in_name", files=files(("good.txt", b"x"), (sent, b"x"))
        )
        assert "send it under its name alone" in response.json()["detail"]


async def test_two_files_of_one_name_are_refused(
    alice: httpx.AsyncClient, settings: Settings
) -> None:
    sent = files(("a.txt", b"one"), ("b.txt", b"x"), ("a.txt", b"two"))
    response = await refused(alice, settings, 422, "invalid_request", files=sent)
    assert "two files are called a.txt" in response.json()["detail"]


async def refused(
    client: httpx.AsyncClient, settings: Settings, status: int, code: str, **request: Any
) -> httpx.Response:
    before = kept(settings)
    response = await client.post(URL, **request)
    assert code_of(response) == (status, code), response.text
    assert kept(settings) == before, "nothing of it stays"
    return response


async def test_file_that_is_not_welcome_is_refused_with_all_others(
    alice: httpx.AsyncClient, settings: Settings, async_database: AsyncDatabase
) -> None:
    for name, content, status, code in [
        ("x.exe", b"MZ", 415, "unsupported_type"),
        ("x", b"text", 415, "unsupported_type"),
        ("x.txt", b"", 422, "empty_file"),
        ("x.pdf", b"no pdf", 415, "type_mismatch"),
        ("x.txt", PDF, 415, "type_mismatch"),
        ("x.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 422, "encrypted_file"),
    ]:
        sent = files(("good.txt", b"good"), (name, content))
        await refused(alice, settings, status, code, files=sent)
    assert await count(async_database) == 0


async def test_request_that_is_no_upload_is_refused(
    alice: httpx.AsyncClient, settings: Settings
) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    no_boundary = {"Content-Type": "multipart/form-data"}
    long_boundary = {"Content-Type": f"multipart/form-data; boundary={'x' * 400}"}
    part = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nHello'
    wrong: list[tuple[int, str, dict[str, Any]]] = [
        (400, "malformed_body", {}),
        (400, "malformed_body", {"json": {"files": []}}),
        (400, "malformed_body", {"data": {"files": "x"}}),
        (400, "malformed_body", {"content": b"", "headers": kind}),
        (400, "malformed_body", {"content": b"rubbish", "headers": kind}),
        (400, "malformed_body", {"content": part, "headers": kind}),
        (400, "malformed_body", {"content": part + b"\r\n--B", "headers": kind}),
        (400, "malformed_body", {"content": b"x", "headers": no_boundary}),
        (400, "malformed_body", {"content": b"x", "headers": long_boundary}),
        (422, "invalid_request", {"content": b"--B--\r\n", "headers": kind}),
        (422, "invalid_request", {"files": [("other", ("a.txt", b"x"))]}),
        (422, "invalid_request", {"files": files(("a.txt", b"x")), "data": {"more": "x"}}),
        (422, "invalid_request", {"files": [("files", (None, b"x"))]}),
    ]
    for status, code, request in wrong:
        await refused(alice, settings, status, code, **request)


async def test_file_of_the_largest_size_is_taken_and_one_byte_more_is_not(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    small = configure(
        **settings.model_dump() | {"max_upload_bytes": 100_000, "max_upload_files": 3}
    )
    key, _ = await create_key(async_database, "alice", ["write"])
    async with running(create_app(small)) as app, client_of(app, **{"X-API-Key": key}) as client:
        taken = await client.post(URL, files=files(("a.txt", b"x" * 100_000)))
        assert taken.status_code == 202
        response = await refused(
            client, small, 413, "file_too_large", files=files(("a.txt", b"x" * 100_001))
        )
        assert "a.txt" in response.json()["detail"]
        many = files(*((f"{n}.txt", b"x") for n in range(4)))
        await refused(client, small, 413, "too_many_files", files=many)


async def test_endless_upload_is_ended_at_the_first_byte_too_many(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    small = changed(settings, max_upload_bytes=100_000)
    key, _ = await create_key(async_database, "alice", ["write"])
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        while True:
            sent += 10_000
            yield b"x" * 10_000

    async with running(create_app(small)) as app, client_of(app, **{"X-API-Key": key}) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        await refused(client, small, 413, "file_too_large", content=endless(), headers=headers)
    assert sent <= 120_000


async def test_full_disk_is_said_and_leaves_nothing(
    alice: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await alice.post(URL, files=files(("a.txt", b"x")))
    monkeypatch.setattr(os, "fsync", full)
    await refused(alice, settings, 507, "storage_full", files=files(("a.txt", b"x" * 100_000)))


async def test_broken_commit_of_the_jobs_leaves_no_file_and_no_job(
    alice: httpx.AsyncClient,
    settings: Settings,
    async_database: AsyncDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second of three jobs cannot be written: all are refused, with their files."""
    calls = 0

    async def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise DatabaseUnavailable("gone")
        return await enqueue(*args, **kwargs)

    monkeypatch.setattr(rag, "enqueue", failing)
    sent = files(("a.txt", b"x"), ("b.txt", b"y"), ("c.txt", b"z"))
    await refused(alice, settings, 503, "database_unavailable", files=sent)
    assert await count(async_database) == 0


async def test_commit_of_unknown_outcome_keeps_the_files(
    alice: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs may exist: without their files they would fail."""
    real = AsyncSession.commit

    async def torn(session: AsyncSession) -> None:
        await real(session)
        raise ConnectionResetError("the connection broke")

    monkeypatch.setattr(AsyncSession, "commit", torn)
    response = await alice.post(URL, files=files(("a.txt", b"x")))
    assert code_of(response) == (503, "database_unavailable")
    assert len(kept(settings)) == 1


def test_files_that_a_dead_server_left_are_cleared_away(settings: Settings) -> None:
    folder = settings.data_dir / "uploads"
    folder.mkdir(parents=True)
    old, new, whole = folder / "old.part", folder / "new.part", folder / "whole.txt"
    for path in (old, new, whole):
        path.write_bytes(b"x")
    long_ago = time.time() - 2 * 86400
    for path in (old, whole):
        os.utime(path, (long_ago, long_ago))
    clear_abandoned(settings)
    assert not old.exists()
    assert new.exists()
    assert whole.exists()


async def test_upload_needs_the_right_to_write(
    make_client: MakeClient, nobody: httpx.AsyncClient, settings: Settings
) -> None:
    sent = files(("a.txt", b"x"))
    await refused(nobody, settings, 401, "unauthenticated", files=sent)
    reader = await make_client("alice", "read")
    await refused(reader, settings, 403, "scope_missing", files=sent)
    assert kept(settings) == []


# -- search ----------------------------------------------------------------------------------------


async def test_search_finds_in_the_owners_documents(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    admin: httpx.AsyncClient,
    async_database: AsyncDatabase,
) -> None:
    new = NewDocument(
        owner="alice", name="a.pdf", media_type="application/pdf", size=1, sha256="0", title="A",
        pages=2, chunks=1,
    )  # fmt: skip
    await async_database.run(replace_document(new, [NewChunk(0, 2, "The <quick> brown fox")]))
    (hit,) = (await alice.get("/v1/rag/search", params={"q": "QUICK fox"})).json()["items"]
    assert (hit["name"], hit["page"]) == ("a.pdf", 2)
    assert hit["snippet"] == "The &lt;<mark>quick</mark>&gt; brown <mark>fox</mark>"
    assert len((await admin.get("/v1/rag/search?q=fox")).json()["items"]) == 1
    assert (await bob.get("/v1/rag/search?q=fox")).json() == {"items": []}


async def test_snippets_are_made_on_another_thread_than_the_servers(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def hits(_rows: object, _query: str, _language: str | None) -> list[object]:
        threads.append(threading.current_thread())
        return []

    monkeypatch.setattr(rag, "hits", hits)
    assert (await alice.get("/v1/rag/search?q=fox")).status_code == 200
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_search_for_rubbish_finds_nothing(alice: httpx.AsyncClient) -> None:
    for q in ("", " ", '"', "' OR 1=1 --", "(", "a AND", "NEAR(", "*", "&|!<->", "\\", ":*", "%"):
        response = await alice.get("/v1/rag/search", params={"q": q})
        assert response.json() == {"items": []}, (q, response.text)


async def test_search_that_is_not_as_documented_is_refused(alice: httpx.AsyncClient) -> None:
    wrong: list[dict[str, Any]] = [{}, {"q": "\0"}, {"q": "x" * 1001}, {"q": "x", "limit": 0}]
    for params in wrong:
        response = await alice.get("/v1/rag/search", params=params)
        assert code_of(response) == (422, "invalid_request"), params
