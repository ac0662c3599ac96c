"""Text cut into chunks at its natural borders."""

from __future__ import annotations

from itertools import count
from typing import Final

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from livejobs.documents import NewChunk
from livejobs.file_kinds import MARKDOWN
from livejobs.words import stems

from .pages import Page

CHUNK_CHARACTERS: Final = 1000
OVERLAP_CHARACTERS: Final = 100
"""Of neighbouring chunks of a page at most, so that what stands on a border is found whole."""


class Splitter:
    """Cuts the pages of one document, in their order.

    Args:
        media_type: The document's; Markdown is cut along its structure.
        first: Ordinal of the first chunk.
        language: Of the stems that the chunks get; None: they get none.
    """

    def __init__(self, media_type: str, first: int = 0, language: str | None = None) -> None:
        kind = MarkdownSplitter if media_type == MARKDOWN else TextSplitter
        self._splitter = kind(CHUNK_CHARACTERS, OVERLAP_CHARACTERS)
        self._ordinals = count(first)
        self._language = language

    def split(self, page: Page) -> list[NewChunk]:
        """The chunks of a page, numbered on from those of the page before."""
        return [
            NewChunk(next(self._ordinals), page.number, text, stems(text, self._language))
            for text in self._splitter.chunks(page.text)
        ]
