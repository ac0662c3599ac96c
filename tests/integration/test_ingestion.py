"""Documents sent to a real server, and ingested by a real worker."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import select

from livejobs import archives
from livejobs.database import get_database
from livejobs.documents import chunks, documents
from livejobs.settings import Settings
from livejobs.uploads import uploads
from tests.files import docx_file, pdf_bomb, pdf_file, zip_file
from tests.support.clients import code_of
from tests.support.ingesting import ended, kept, rest

pytest_plugins = ["tests.support.ingesting_stack"]

URL = "/v1/rag/ingest"
BOMB = zip_file({"word/document.xml": bytes(2 * archives.SMALL_BYTES)})


async def sent(client: httpx.AsyncClient, name: str, content: bytes) -> httpx.Response:
    return await client.post(URL, files=[("files", (name, content))])


@pytest.mark.parametrize(
    ("name", "content", "status", "code", "words"),
    [
        ("a.docx", BOMB, 422, "zip_bomb", "more than 200 times its size, so it is not opened"),
        ("a.docx", docx_file(["text"])[:2000], 422, "broken_file", "save it anew and send that"),
        ("a.docx", zip_file({"x": b"x"}), 415, "type_mismatch", "send it under its right name"),
        ("a.pdf", b"<html>", 415, "type_mismatch", "its content is plain text"),
        ("a.txt", pdf_file(["x"]), 415, "type_mismatch", "its content is a PDF"),
        ("../../etc/a.txt", b"x", 422, "path_in_name", "send it under its name alone"),
        ("a.txt", b"", 422, "empty_file", "a.txt is empty: see whether it was saved"),
        ("a.exe", b"MZ", 415, "unsupported_type", "a.exe is of a kind that cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
async def test_what_can_be_seen_at_once_is_refused_and_not_kept(
    ingesting: Settings, name: str, content: bytes, status: int, code: str, words: str
) -> None:
    async with rest(ingesting, "bob") as client:
        before = kept(ingesting)
        response = await sent(client, name, content)
        assert code_of(response) == (status, code), response.text
        assert words in response.json()["detail"]
        assert kept(ingesting) == before
        assert (await client.get("/v1/jobs")).json()["items"] == []


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (pdf_bomb(200_000_000), "zip_bomb", "unpacks on page 1 to more than a page can hold"),
        (pdf_file(["x"], user_password="secret"), "encrypted_file", "save it without one"),
        (pdf_file(["x"])[:300], "broken_file", "save it anew and send that"),
        (pdf_file(["", ""]), "no_text", "send it through text recognition"),
    ],
    ids=["bomb", "encrypted", "broken", "pictures"],
)
async def test_what_is_seen_while_reading_fails_the_job_in_a_sentence(
    ingester: Settings, content: bytes, code: str, words: str
) -> None:
    async with rest(ingester) as client:
        response = await sent(client, "a.pdf", content)
        (made,) = response.json()["jobs"]
        job = await ended(made["job_id"])
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.type, job.error.code) == ("IngestError", code)
    assert words in job.error.message
    assert job.error.message.startswith("a.pdf ")
    assert job.attempt == 1


async def test_language_of_a_document_stays_with_it_and_rules_its_search(
    ingester: Settings,
) -> None:
    async with rest(ingester, "dora") as client:

        async def found(query: str, **params: str) -> list[str]:
            answer = await client.get("/v1/rag/search", params={"q": query, **params})
            assert answer.status_code == 200, answer.text
            return sorted(hit["name"] for hit in answer.json()["items"])

        german = [("files", ("de.txt", "Viele Häuser stehen dort.".encode()))]
        made = await client.post(URL, files=german, params={"language": "german"})
        assert (await ended(made.json()["jobs"][0]["job_id"])).error is None
        english = [("files", ("en.txt", b"Many houses are there."))]
        made = await client.post("/v1/documents", files=english, params={"language": "english"})
        assert (await ended(made.json()["job_id"])).error is None
        assert await found("haus", language="german") == ["de.txt"]
        assert await found("house", language="english") == ["en.txt"]
        assert await found("house") == await found("haus") == []
        assert await found("houses") == ["en.txt"]
        assert await found("there -house", language="english") == []

        items = (await client.get("/v1/documents")).json()["items"]
        assert [item["language"] for item in items] == ["german", "english"]
        again = f"/v1/documents/{items[0]['document_id']}/ingest"
        await ended((await client.post(again)).json()["job_id"])
        assert await found("haus", language="german") == ["de.txt"]
        made = await client.post(again, params={"language": "english"})
        await ended(made.json()["job_id"])
        assert await found("haus", language="german") == []
        refused = await client.get("/v1/rag/search", params={"q": "x", "language": "klingon"})
        assert code_of(refused) == (422, "invalid_request")
        assert "it is one of arabic" in refused.json()["detail"]


async def test_deleted_document_leaves_nothing_and_can_be_sent_anew(ingester: Settings) -> None:
    async with rest(ingester, "eve") as client:
        before = kept(ingester)
        for word in ("marzipan", "nougat"):
            content = pdf_file([f"the {word} of page{number}" for number in range(30)])
            made = (await sent(client, "sweets.pdf", content)).json()["jobs"][0]
            assert (await ended(made["job_id"])).error is None
            (item,) = (await client.get("/v1/documents")).json()["items"]
            found = await client.get("/v1/rag/search", params={"q": word, "limit": 100})
            assert len(found.json()["items"]) == item["pages"] == 30
            assert (await client.delete(f"/v1/documents/{item['document_id']}")).status_code == 204
            found = await client.get("/v1/rag/search", params={"q": word})
            assert found.json() == {"items": []}
            assert kept(ingester) == before
        with get_database().begin() as connection:
            mine = select(documents.c.id).where(documents.c.owner == "eve")
            assert connection.execute(mine).all() == []
            lost = select(chunks.c.id).where(chunks.c.document_id.not_in(select(documents.c.id)))
            assert connection.execute(lost).all() == []
            assert (
                connection.execute(select(uploads.c.name).where(uploads.c.owner == "eve")).all()
                == []
            )
