"""Files that cannot be ingested, and the sentence that each of them gets."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from zipfile import BadZipFile

import pytest

from livejobs import archives
from livejobs.documents import IngestError
from livejobs_worker.rag import markup
from livejobs_worker.rag.pages import Page
from livejobs_worker.rag.parse import parse
from tests.files import docx_file, pdf_bomb, pdf_file, zip_file

PDF = pdf_file(["first page", "second page"])
DOCX = docx_file(["# Head", "text"])
BOMB = zip_file({"word/document.xml": bytes(archives.MAX_UNPACKED_BYTES), "word/more.xml": b"x"})
SMALL_BOMB = zip_file({"word/document.xml": bytes(2 * archives.SMALL_BYTES)})
MANY_PARTS = zip_file({f"word/{number}": b"" for number in range(archives.MAX_ENTRIES + 1)})
END = SMALL_BOMB.rindex(b"PK\x05\x06")
LARGE_FORMAT = SMALL_BOMB[:END] + b"PK\x06\x07" + bytes(16) + SMALL_BOMB[END:]


def outcome(path: Path, content: bytes, filename: str) -> IngestError | list[Page]:
    path.write_bytes(content)
    try:
        return list(parse(path, filename).pages)
    except IngestError as error:
        return error


@pytest.mark.parametrize(
    ("content", "filename", "code", "words"),
    [
        (b"", "a.txt", "empty_file", "a.txt is empty: "),
        (b" \n\t\n", "a.txt", "no_text", "a.txt has no text in it."),
        (b"<p> </p><script>x</script>", "a.html", "no_text", "a.html has no text"),
        (docx_file([""]), "a.docx", "no_text", "a.docx has no text"),
        (pdf_file(["", ""]), "a.pdf", "no_text", "text recognition"),
        (b"x", "a.xls", "unsupported_type", "a.xls is of a kind that cannot be read"),
        (b"hello", "a.pdf", "type_mismatch", "its content is plain text"),
        (PDF, "a.docx", "type_mismatch", "its content is a PDF"),
        (zip_file({"xl/workbook.xml": b"x"}), "a.docx", "type_mismatch", "something else"),
        (pdf_file(["x"], user_password="secret"), "a.pdf", "encrypted_file", "password"),
        (b"%PDF-1.7 rubbish", "a.pdf", "broken_file", "a.pdf is damaged"),
        (PDF[:200], "a.pdf", "broken_file", "a.pdf is damaged"),
        (DOCX[:2000], "a.docx", "broken_file", "a.docx is damaged"),
        (zip_file({"word/document.xml": b"x"}), "a.docx", "broken_file", "a.docx is damaged"),
        (BOMB, "a.docx", "file_too_large", "more than 100 MB when unpacked"),
        (SMALL_BOMB, "a.docx", "zip_bomb", "more than 200 times its size"),
        (MANY_PARTS, "a.docx", "zip_bomb", "more parts than a document can have"),
        (LARGE_FORMAT, "a.docx", "zip_bomb", "more parts than a document can have"),
        (pdf_bomb(500_000_000), "a.pdf", "zip_bomb", "unpacks on page 1 to more than"),
    ],
)
def test_refusal_says_what_is_wrong(
    tmp_path: Path, content: bytes, filename: str, code: str, words: str
) -> None:
    error = outcome(tmp_path / "upload", content, filename)
    assert isinstance(error, IngestError)
    assert error.code == code
    assert words in str(error)


def test_archive_that_lies_about_its_size_is_not_unpacked_further(tmp_path: Path) -> None:
    size = 200_000
    bomb = zip_file({"[Content_Types].xml": bytes(size), "word/document.xml": b"x"})
    lie = bomb.replace(size.to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lie != bomb
    error = outcome(tmp_path / "upload", lie, "a.docx")
    assert isinstance(error, IngestError)
    assert isinstance(error.__cause__, BadZipFile)


def test_large_page_is_refused_before_its_tree_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markup, "MAX_HTML_BYTES", 10)
    error = outcome(tmp_path / "upload", b"<p>more than ten", "a.html")
    assert isinstance(error, IngestError)
    assert error.code == "file_too_large"


def test_page_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_page: object) -> str:
        raise KeyError("/Font")

    monkeypatch.setattr("pypdf.PageObject.extract_text", fail)
    error = outcome(tmp_path / "upload", PDF, "a.pdf")
    assert isinstance(error, IngestError)
    assert "damaged on page 1 " in str(error)
    assert isinstance(error.__cause__, KeyError)


def test_full_memory_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_page: object) -> str:
        raise MemoryError

    monkeypatch.setattr("pypdf.PageObject.extract_text", fail)
    with pytest.raises(MemoryError):
        outcome(tmp_path / "upload", PDF, "a.pdf")


@pytest.mark.parametrize(("content", "filename"), [(PDF, "a.pdf"), (DOCX, "a.docx")])
def test_damage_anywhere_gives_pages_or_a_refusal(
    tmp_path: Path, content: bytes, filename: str
) -> None:
    dice = random.Random(7)
    outcomes: Counter[type] = Counter()
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 30)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        outcomes[type(outcome(tmp_path / "upload", bytes(damaged), filename))] += 1
    assert outcomes[IngestError] > 10
    assert set(outcomes) <= {IngestError, list}
