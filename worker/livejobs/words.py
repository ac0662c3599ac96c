"""Words of a text, and their stems in a language, by the Snowball algorithms.

Texts and queries are stemmed here and not by the database, so that both databases find the same.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
from typing import Any, Final

LANGUAGES: Final = (
    *("arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english"),
    *("esperanto", "estonian", "finnish", "french", "german", "greek", "hindi", "hungarian"),
    *("indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "persian", "polish"),
    *("portuguese", "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish"),
    "yiddish",
)
REMEMBERED: Final = 50_000
"""Words whose stems a process remembers; a book has some ten thousand."""

# Letters and digits make a word, the underscore separates, as in FTS5's unicode61.
WORD: Final = re.compile(r"[^\W_]+")

_turn = threading.Lock()  # a stemmer works on one word at a time


@functools.lru_cache(REMEMBERED)
def stem(word: str, language: str) -> str:
    """What the forms of a word have in common, in small letters.

    Args:
        language: One of `LANGUAGES`.
    """
    with _turn:
        found: str = _stemmer(language).stemWord(word.casefold())
    return found


def stems(text: str, language: str | None) -> str | None:
    """The stems of all words of a text, in their order; None without a language."""
    if language is None:
        return None
    return " ".join(stem(word, language) for word in WORD.findall(text))


@functools.cache
def _stemmer(language: str) -> Any:
    # Loaded where a language is used: it comes with the extras of server and worker.
    return importlib.import_module("snowballstemmer").stemmer(language)
