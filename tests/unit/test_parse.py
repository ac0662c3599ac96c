"""Documents of every kind read into pages of plain text."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file
from pathlib import Path

import pytest

from livejobs.documents import ACCEPTED
from livejobs_worker.demo import HIDDEN_WORDS, demo_documents
from livejobs_worker.rag.pages import Document, Page
from livejobs_worker.rag.parse import parse
from livejobs_worker.rag.plain import PIECE_CHARACTERS
from tests.files import docx_file, pdf_file

Read = Callable[[bytes, str], tuple[Document, list[Page]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Parse bytes as a file of that name; the file itself has another one, as uploads do."""

    def read(content: bytes, filename: str) -> tuple[Document, list[Page]]:
        path = tmp_path / "upload"
        path.write_bytes(content)
        document = parse(path, filename)
        return document, list(document.pages)

    return read


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_text_is_decoded_in_any_usual_encoding(read: Read, encoding: str) -> None:
    document, pages = read("Größe “x” und mehr Text".encode(encoding), "notes.txt")
    assert pages == [Page(None, "Größe “x” und mehr Text")]
    assert (document.title, document.total) == ("notes", 1)
    assert document.media_type == ACCEPTED[".txt"]


def test_text_in_no_encoding_is_read_as_latin_1(read: Read) -> None:
    assert read(b"a\x81\xe4", "notes.txt")[1] == [Page(None, "aä")]


def test_text_is_cleaned_for_storing(read: Read) -> None:
    text = "a\u0301 \ufb01sh\r\nhy\xadphen\x07\x1b\rend\x0c"
    assert read(text.encode(), "notes.txt")[1][0].text == "á fish\nhyphen\nend\n"


def test_long_text_comes_in_pieces_cut_between_paragraphs(read: Read) -> None:
    paragraph = f"{'word ' * 100}\n\n"
    text = paragraph * 500
    document, pages = read(text.encode(), "long.txt")
    assert document.total == len(pages) == -(-len(text) // PIECE_CHARACTERS)
    assert "".join(page.text for page in pages) == text
    assert all(page.text.startswith("word") and page.number is None for page in pages)
    assert all(len(page.text) <= PIECE_CHARACTERS for page in pages)


def test_long_text_without_any_border_comes_in_pieces_too(read: Read) -> None:
    pages = read(b"x" * (2 * PIECE_CHARACTERS + 1), "long.txt")[1]
    assert [len(page.text) for page in pages] == [PIECE_CHARACTERS, PIECE_CHARACTERS, 1]


def test_markdown_keeps_its_text_and_is_named_by_its_heading(read: Read) -> None:
    document, pages = read(b"intro\n\n## Part\n\n# The *Title* #\n", "notes.md")
    assert document.title == "The *Title*"
    assert pages[0].text.startswith("intro\n\n## Part")


def test_html_gives_the_text_that_a_reader_sees(read: Read) -> None:
    page = b"""<?xml version="1.0"?><!doctype html><html><head><title> A
      page</title><style>p {}</style><script>evil()</script></head><body><!-- no -->
      <h1>Head</h1><p>Hello <b>wor</b>ld\nagain<br>next &amp; on</p><noscript>no</noscript>
      <ul><li>one<li>two</ul><table><tr><td>1</td><td>2</td></tr><tr><td>3</table>
      <pre>line 1\n  line 2</pre><svg><text>no</text></svg></body></html>"""
    document, pages = read(page, "page.html")
    assert document.title == "A page"
    assert pages[0].text.split("\n\n") == [
        "Head", "Hello world again\nnext & on", "one", "two", "1 2", "3", "line 1\n line 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('<meta charset="iso-8859-5"><p>Привет'.encode("iso-8859-5"), "Привет"),
        ('<meta charset="no-such-thing"><p>grün'.encode(), "grün"),
        ("<p>grün".encode("utf-16"), "grün"),
        (b"no tags, https://example.org", "no tags, https://example.org"),
        (b"<div>" * 3000 + b"deep", "deep"),
        (b"<p>unclosed <b>tags", "unclosed tags"),
    ],
)
def test_html_is_read_as_it_comes(read: Read, content: bytes, text: str) -> None:
    assert read(content, "page.htm")[1] == [Page(None, text)]


def test_html_without_title_is_named_by_its_heading_or_file(read: Read) -> None:
    assert read(b"<title> </title><h1>Big <i>words</i></h1>", "page.html")[0].title == "Big words"
    assert read(b"<p>text", "page.html")[0].title == "page"


def test_pdf_is_read_page_by_page(read: Read) -> None:
    document, pages = read(pdf_file(["first page", "", "third page"], "A Title"), "book.pdf")
    assert (document.title, document.total) == ("A Title", 3)
    assert pages == [Page(1, "first page"), Page(2, ""), Page(3, "third page")]


def test_pdf_that_only_forbids_changes_is_read(read: Read) -> None:
    assert read(pdf_file(["not secret"], user_password=""), "book.pdf")[1][0].text == "not secret"


def test_word_paragraphs_and_tables_come_in_their_order(read: Read) -> None:
    content = docx_file(["# Report", "One.", "", "Two."], [["a", "b"], ["c\nd", ""]])
    document, pages = read(content, "report.docx")
    assert document.title == "Report"
    assert pages == [Page(None, "Report\n\nOne.\n\nTwo.\n\na | b\nc d | ")]


def test_word_document_is_named_by_its_properties(read: Read) -> None:
    assert read(docx_file(["# Head", "text"], title="The Title"), "report.docx")[0].title == (
        "The Title"
    )


def test_demo_documents_hold_their_hidden_words_and_no_other() -> None:
    texts = {}
    for resource in demo_documents():
        with as_file(resource) as path:
            document = parse(path, resource.name)
            texts[resource.name] = [page.text.lower() for page in document.pages]
        assert document.total == len(texts[resource.name])
    for name, word in HIDDEN_WORDS.items():
        holders = [other for other, pages in texts.items() if any(word in text for text in pages)]
        assert holders == [name]
    assert len(texts["field-guide.pdf"]) == 30
    assert HIDDEN_WORDS["field-guide.pdf"] in texts["field-guide.pdf"][-1]
    assert "zucchini" not in str(texts)  # it stands in a script of the page
