"""Makes the demo documents that no editor can write: a PDF and a Word document.

Run it after changing one of the sources beside it: ``python tests/demo_documents/make.py``.
The same sources give the same bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from docx import Document as new_document
from docx.document import Document
from fpdf import FPDF

SOURCES = Path(__file__).parent
DEMO = SOURCES.parents[1] / "worker" / "livejobs_worker" / "demo"
MADE_AT = datetime(2025, 1, 1, tzinfo=UTC)


class Guide(FPDF):
    """A book in A5 (millimetres) with the page's number at its foot."""

    def footer(self) -> None:
        """Write the number."""
        self.set_y(-15)
        self.set_font("Helvetica", size=8)
        self.cell(text=str(self.page_no()), align="C", w=0)


def sections(source: str, mark: str) -> Iterator[tuple[str, list[str]]]:
    """Headings and the paragraphs under each."""
    for section in f"\n{source}".split(f"\n{mark} ")[1:]:
        heading, _, body = section.partition("\n")
        yield heading, [line for line in body.split("\n") if line]


def make_pdf(source: str) -> bytes:
    """One page for each section: heading, a line in italics, paragraphs."""
    guide = Guide(format=(148, 210))
    guide.set_creation_date(MADE_AT)
    guide.set_title("A Field Guide to Background Jobs")
    guide.set_author("The livejobs contributors")
    guide.set_margins(18, 20, 18)
    for heading, (subtitle, *paragraphs) in sections(source, "#"):
        guide.add_page()
        guide.set_font("Helvetica", style="B", size=16)
        guide.multi_cell(0, 8, heading, new_x="LMARGIN", new_y="NEXT")
        guide.set_font("Helvetica", style="I", size=10)
        guide.multi_cell(0, 6, subtitle, new_x="LMARGIN", new_y="NEXT")
        guide.set_font("Helvetica", size=10.5)
        for paragraph in paragraphs:
            guide.ln(3)
            guide.multi_cell(0, 5.4, paragraph, align="L", new_x="LMARGIN", new_y="NEXT")
    return bytes(guide.output())


def make_docx(source: str) -> bytes:
    """Headings, paragraphs, and lines that begin with | as a table."""
    document = new_document()
    ((title, body),) = sections(source, "#")
    document.core_properties.title = title
    document.core_properties.author = "The livejobs contributors"
    document.core_properties.created = document.core_properties.modified = MADE_AT
    document.add_heading(title, 0)
    rows: list[list[str]] = []
    for line in [*body, ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            add_table(document, rows)
            rows = []
        if line.startswith("## "):
            document.add_heading(line.removeprefix("## "), 1)
        elif line:
            document.add_paragraph(line)
    made = BytesIO()
    document.save(made)
    return without_times(made)


def add_table(document: Document, rows: list[list[str]]) -> None:
    """Add a table with the given cells."""
    table = document.add_table(len(rows), len(rows[0]), style="Table Grid")
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text


def without_times(made: BytesIO) -> bytes:
    """The same archive with one date for all entries."""
    fixed = BytesIO()
    with zipfile.ZipFile(made) as before, zipfile.ZipFile(fixed, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            entry.date_time = MADE_AT.timetuple()[:6]
            after.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return fixed.getvalue()


def main() -> None:
    """Write both documents into the demo's folder."""
    for name, make in {"field-guide.pdf": make_pdf, "runbook.docx": make_docx}.items():
        source = (SOURCES / name).with_suffix(".txt").read_text(encoding="utf-8")
        (DEMO / name).write_bytes(make(source))


if __name__ == "__main__":
    main()
