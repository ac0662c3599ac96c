"""Word documents (DOCX): paragraphs and tables in their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docx import Document as open_docx
from docx.blkcntnr import BlockItemContainer
from docx.document import Document as WordDocument
from docx.opc.exceptions import OpcError
from docx.table import Table

from livejobs.archives import check_document

from .pages import DAMAGE, broken, first_line
from .plain import clean

_DAMAGE: Final = (OpcError, *DAMAGE)


def read_docx(path: Path, name: str) -> tuple[str | None, str]:
    """Title (None: it states none) and text, a blank line between paragraphs.

    Raises:
        IngestError: Damaged, too large when unpacked, or no Word document.
    """
    try:
        check_document(path, name)
        document = open_docx(str(path))
        title = first_line(clean(document.core_properties.title or ""), _title(document))
        return title, clean("\n\n".join(block for block in _blocks(document) if block.strip()))
    except _DAMAGE as error:
        raise broken(name) from error


def _title(document: WordDocument) -> str | None:
    for paragraph in document.paragraphs:
        style = paragraph.style.name if paragraph.style else None
        if style in ("Title", "Heading 1"):
            return clean(paragraph.text)
    return None


def _blocks(container: WordDocument | BlockItemContainer) -> Iterator[str]:
    for item in container.iter_inner_content():
        yield "\n".join(_rows(item)) if isinstance(item, Table) else item.text


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        # A cell that spans columns comes once for each of them.
        cells = dict.fromkeys(row.cells)
        yield " | ".join(" ".join(" ".join(_blocks(cell)).split()) for cell in cells)
