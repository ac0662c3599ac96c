"""What may be ingested, told by name and first bytes."""

from __future__ import annotations

import pickle

import pytest

from livejobs.documents import ACCEPTED, IngestError, document_name, sniff
from livejobs.file_kinds import unicode_encoding

ZIP = b"PK\x03\x04rest"
OLD_WORD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest"


@pytest.mark.parametrize(
    ("head", "filename", "extension"),
    [
        (b"hello", "notes.txt", ".txt"),
        (b"hello", "NOTES.TXT", ".txt"),
        (b"# hello", "notes.md", ".md"),
        (b"<p>hello", "page.htm", ".html"),
        (b"hello", "page.html", ".html"),
        (b"%PDF-1.7\n", "book.pdf", ".pdf"),
        (b"rubbish first\n%PDF-1.7\n", "book.pdf", ".pdf"),
        (ZIP, "letter.docx", ".docx"),
        ("grün".encode("utf-16"), "notes.txt", ".txt"),
        ("plain letters".encode("utf-16-le"), "notes.txt", ".txt"),
        (b"how %PDF- files begin", "notes.txt", ".txt"),
    ],
)
def test_sniff_accepts_content_that_agrees_with_its_name(
    head: bytes, filename: str, extension: str
) -> None:
    assert sniff(head, filename) == ACCEPTED[extension]


@pytest.mark.parametrize(
    ("head", "filename", "code", "words"),
    [
        (b"hello", "notes.exe", "unsupported_type", ".docx"),
        (b"hello", "notes", "unsupported_type", "notes"),
        (b"hello", "", "unsupported_type", "unnamed"),
        (b"", "notes.txt", "empty_file", "notes.txt is empty"),
        (b"hello", "book.pdf", "type_mismatch", "named like a PDF, but its content is plain text"),
        (ZIP, "book.pdf", "type_mismatch", "a ZIP archive"),
        (b"%PDF-1.7", "notes.txt", "type_mismatch", "its content is a PDF"),
        (b"%PDF-1.7", "letter.docx", "type_mismatch", "named like a Word document"),
        (b"\x89PNG\r\n\x1a\n", "page.html", "type_mismatch", "a picture"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "notes.md", "type_mismatch", "no text"),
        (OLD_WORD, "letter.docx", "encrypted_file", "password"),
        (OLD_WORD, "notes.txt", "type_mismatch", "Office"),
    ],
)
def test_sniff_refuses_in_words_for_people(
    head: bytes, filename: str, code: str, words: str
) -> None:
    with pytest.raises(IngestError) as refusal:
        sniff(head, filename)
    assert refusal.value.code == code
    assert words in str(refusal.value)
    assert str(refusal.value) == refusal.value.message


def test_ingest_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(IngestError("broken_file", "It is broken.")))
    assert (error.code, error.message, str(error)) == ("broken_file", "It is broken.", str(error))


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("book.pdf", "book.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\book.pdf", "book.pdf"),
        (" bo\x00ok\n.pdf ", "book.pdf"),
        ("\ud800book.pdf", "book.pdf"),
        ("Größe 大.pdf", "Größe 大.pdf"),
        ("", "unnamed"),
        ("folder/", "unnamed"),
        ("a" * 300 + ".pdf", "a" * 251 + ".pdf"),
        ("." + "a" * 300, "." + "a" * 254),
    ],
)
def test_document_name_is_fit_to_be_stored_and_shown(filename: str, name: str) -> None:
    assert document_name(filename) == name


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encoding_is_seen(encoding: str) -> None:
    found = unicode_encoding("A text in plain letters".encode(encoding))
    assert found == encoding


@pytest.mark.parametrize("head", [b"", b"a", b"plain", "grün".encode(), b"\x00\x01\x02\x03"])
def test_unicode_encoding_is_not_guessed(head: bytes) -> None:
    assert unicode_encoding(head) is None
