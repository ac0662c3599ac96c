"""A file read into a document: the right reader for its kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from livejobs.file_kinds import (
    DOCX,
    HEAD_BYTES,
    HTML,
    MARKDOWN,
    PDF,
    IngestError,
    document_name,
    sniff,
)

from .markup import read_html
from .pages import Document, Page, first_line
from .pdf import PdfPages
from .plain import clean, decode, heading, pieces
from .word import read_docx


def parse(path: Path, filename: str, after: int = 0) -> Document:
    """Begin to read a file; a PDF's pages are read one at a time while they are iterated.

    Args:
        path: The file.
        filename: The name its owner gave it, which may differ from the path's.
        after: So many pages are left out, in which there was text.

    Raises:
        IngestError: Its kind is not accepted, or it is empty, protected, damaged, too large, or not
            what its name says. More of these come while the pages are iterated.
    """
    name = document_name(filename)
    with path.open("rb") as file:
        media_type = sniff(file.read(HEAD_BYTES), name)
    if media_type == PDF:
        pdf = PdfPages(path, name, after)
        pages = _with_text(pdf, name, media_type, found=after > 0)
        return _document(media_type, name, pdf.title, pages, pdf.total)
    if media_type == DOCX:
        title, text = read_docx(path, name)
    elif media_type == HTML:
        title, text = read_html(path.read_bytes(), name)
    else:
        text = clean(decode(path.read_bytes()))
        title = heading(text) if media_type == MARKDOWN else None
    parts = list(pieces(text))
    pages = _with_text((Page(None, part) for part in parts[after:]), name, media_type, after > 0)
    return _document(media_type, name, title, pages, len(parts))


def _document(
    media_type: str, name: str, title: str | None, pages: Iterator[Page], total: int
) -> Document:
    title = first_line(title, PurePath(name).stem) or name
    return Document(media_type, title, pages, total)


def _with_text(pages: Iterable[Page], name: str, media_type: str, found: bool) -> Iterator[Page]:
    for page in pages:
        found = found or bool(page.text.strip())
        yield page
    if not found:
        why = " (scanned pages are pictures: send it through text recognition)"
        raise IngestError("no_text", f"{name} has no text in it{why if media_type == PDF else ''}.")
