"""Documents for `livejobs demo`, about livejobs itself.

`field-guide.pdf` and `runbook.docx` are made from sources by ``tests/demo_documents/make.py``.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

HIDDEN_WORDS: Final = MappingProxyType(
    {
        "field-guide.pdf": "marzipan",
        "glossary.html": "tamarind",
        "how-it-works.md": "pomegranate",
        "questions.txt": "kohlrabi",
        "runbook.docx": "biscuit",
    }
)
"""Name of each document → a word that stands in no other one; the PDF's is on its last page."""


def demo_documents() -> list[Traversable]:
    """The documents, in the order of their names."""
    folder = resources.files(__name__)
    return [folder / name for name in sorted(HIDDEN_WORDS)]
