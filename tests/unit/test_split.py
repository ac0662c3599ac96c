"""Text cut into chunks."""

from __future__ import annotations

from itertools import pairwise

from livejobs.documents import NewChunk
from livejobs.file_kinds import MARKDOWN, PDF, TEXT
from livejobs_worker.rag.pages import Page
from livejobs_worker.rag.split import CHUNK_CHARACTERS, OVERLAP_CHARACTERS, Splitter

SENTENCE = "The keeper sends what is due and takes back what is lost. "


def test_chunks_know_their_page_and_place() -> None:
    splitter = Splitter(PDF)
    chunks = [
        chunk
        for page in [Page(1, "first"), Page(2, SENTENCE * 40), Page(3, ""), Page(4, "last")]
        for chunk in splitter.split(page)
    ]
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert chunks[0] == NewChunk(0, 1, "first")
    assert chunks[-1] == NewChunk(len(chunks) - 1, 4, "last")
    assert {chunk.page for chunk in chunks} == {1, 2, 4}


def test_chunks_are_bounded_and_end_with_sentences() -> None:
    chunks = Splitter(TEXT).split(Page(None, SENTENCE * 100))
    assert len(chunks) > 5
    assert all(len(chunk.text) <= CHUNK_CHARACTERS for chunk in chunks)
    assert all(chunk.text.endswith(".") for chunk in chunks)


def test_chunks_overlap_a_little() -> None:
    words = " ".join(str(number) for number in range(1000))
    chunks = Splitter(TEXT).split(Page(None, words))
    for before, after in pairwise(chunks):
        shared = set(before.text.split()) & set(after.text.split())
        assert 0 < len(" ".join(shared)) <= OVERLAP_CHARACTERS


def test_markdown_is_cut_at_headings() -> None:
    text = "".join(f"# Chapter {number}\n\n{SENTENCE * 12}\n\n" for number in range(5))
    chunks = Splitter(MARKDOWN).split(Page(None, text))
    assert [chunk.text.splitlines()[0] for chunk in chunks] == [
        f"# Chapter {number}" for number in range(5)
    ]


def test_text_without_any_border_is_cut_too() -> None:
    chunks = Splitter(TEXT).split(Page(None, "x" * 5000))
    assert max(len(chunk.text) for chunk in chunks) <= CHUNK_CHARACTERS


def test_blank_page_has_no_chunks() -> None:
    assert Splitter(TEXT).split(Page(None, " \n\n ")) == []
