"""Files for the tests of ingestion, made in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO

from docx import Document
from fpdf import FPDF


def pdf_file(
    pages: Sequence[str], title: str | None = None, *, user_password: str | None = None
) -> bytes:
    """A PDF with one page for each text; an empty text gives a page with only a drawing.

    Args:
        user_password: Encrypt it: "" can be opened by anyone, another only with the password.
    """
    pdf = FPDF()
    if title is not None:
        pdf.set_title(title)
    if user_password is not None:
        pdf.set_encryption(owner_password="owner", user_password=user_password)
    for text in pages:
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        if text:
            pdf.multi_cell(0, 6, text)
        else:
            pdf.rect(10, 10, 50, 50)
    return bytes(pdf.output())


def docx_file(
    paragraphs: Sequence[str], table: Sequence[Sequence[str]] = (), title: str = ""
) -> bytes:
    """A Word document: paragraphs, then a table; a paragraph that begins with # is a heading."""
    document = Document()
    document.core_properties.title = title
    for text in paragraphs:
        if text.startswith("# "):
            document.add_heading(text.removeprefix("# "), 1)
        else:
            document.add_paragraph(text)
    if table:
        grid = document.add_table(len(table), len(table[0]))
        for row, cells in zip(grid.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    made = BytesIO()
    document.save(made)
    return made.getvalue()


def zip_file(entries: Mapping[str, bytes]) -> bytes:
    """A ZIP archive."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return made.getvalue()


def pdf_bomb(size: int) -> bytes:
    """A PDF whose only page unpacks to so many bytes."""
    packer = zlib.compressobj(9)
    blank = bytes([32]) * 1_000_000
    packed = b"".join(packer.compress(blank) for _ in range(size // len(blank))) + packer.flush()
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed),
    )
    made, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(b"%010d 00000 n \n" % len(made))
        made += b"%d 0 obj%b endobj\n" % (number, content)
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(places)
    end = b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(made)
    return bytes(made) + table + end
