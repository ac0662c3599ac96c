"""What a person types into the search, and the piece of text that is shown for a hit.

The language is small: words are all wanted (AND), ``"a phrase"`` stands in that order, a trailing
``*`` matches beginnings of words, and what follows a ``-`` must not be there. Everything else only
separates words, so no text is a syntax error. Where a language is given, a word stands for its
forms too: it is found by itself or by its stem; phrases and beginnings are taken as they are. The
same terms are rendered for SQLite's FTS5 and PostgreSQL's tsquery, and mark the hits in the text
that is shown.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .words import WORD, stem

MARK_OPEN = "<mark>"
MARK_CLOSE = "</mark>"

SNIPPET_CHARACTERS = 240
"""Length of a snippet before marking and escaping, in characters."""

_LEAD_CHARACTERS = 60  # shown before the first hit
_MAX_QUERY_CHARACTERS = 1000
_MAX_WORD_CHARACTERS = 500  # PostgreSQL refuses words of more than 2046 bytes

_PART = re.compile(r'(?P<minus>-?)"(?P<phrase>[^"]*)"?(?P<star>\*?)|(?P<bare>[^\s"]+)')
_STRAIGHT_QUOTES = str.maketrans(dict.fromkeys("“”„«»", '"'))


class Term(NamedTuple):
    """Words that follow each other.

    Attributes:
        words: As they were typed.
        prefix: The last one is the beginning of a word.
        without: They must not be there.
        stem: What the forms of the only word have in common; None: it is taken as it is.
        language: Of the stem.
    """

    words: tuple[str, ...]
    prefix: bool = False
    without: bool = False
    stem: str | None = None
    language: str | None = None


class _Word(NamedTuple):
    start: int
    end: int
    folded: str


def parse_query(text: str, language: str | None = None) -> tuple[Term, ...]:
    """The terms of a query, each once; none where nothing is wanted, but only not wanted.

    What is past the first 1000 characters is not looked at.

    Args:
        language: One of `words.LANGUAGES`, whose forms of words are found too; None: no forms.
    """
    text = unicodedata.normalize("NFC", text[:_MAX_QUERY_CHARACTERS]).translate(_STRAIGHT_QUOTES)
    parts = (_term(part, language) for part in _PART.finditer(text))
    terms = tuple(dict.fromkeys(term for term in parts if term.words))
    return terms if any(not term.without for term in terms) else ()


def _term(part: re.Match[str], language: str | None) -> Term:
    bare = part["bare"] or ""
    words = tuple(word[:_MAX_WORD_CHARACTERS] for word in WORD.findall(part["phrase"] or bare))
    term = Term(
        words,
        prefix=bool(part["star"]) or bare.endswith("*"),
        without=bool(part["minus"]) or bare.startswith("-"),
    )
    if language is None or term.prefix or len(words) != 1 or not bare:
        return term
    return term._replace(stem=stem(words[0], language), language=language)


def fts5_query(terms: Sequence[Term]) -> str:
    """The terms as an expression for FTS5's MATCH, over the columns `text` and `stems`."""
    wanted = " AND ".join(_fts5(term) for term in terms if not term.without)
    unwanted = " OR ".join(_fts5(term) for term in terms if term.without)
    return f"({wanted}) NOT ({unwanted})" if unwanted else wanted


def _fts5(term: Term) -> str:
    found = f'text : "{" ".join(term.words)}"{"*" if term.prefix else ""}'
    return found if term.stem is None else f'({found} OR stems : "{term.stem}")'


def tsquery(terms: Sequence[Term]) -> str:
    """The terms as a text for PostgreSQL's `to_tsquery`; words have weight A, stems B."""
    return " & ".join(f"{'!' if term.without else ''}({_tsquery(term)})" for term in terms)


def _tsquery(term: Term) -> str:
    *first, last = term.words
    found = " <-> ".join(
        [*(f"'{word}':A" for word in first), f"'{last}':{'*' if term.prefix else ''}A"]
    )
    return found if term.stem is None else f"{found} | '{term.stem}':B"


def snippet(text: str, terms: Sequence[Term]) -> str:
    """The part of `text` with the most hits, as HTML: escaped, each word hit within ``<mark>``.

    Without a hit it is the beginning. ``…`` stands where text was left out.
    """
    text = " ".join(text.split())
    words = [_Word(*match.span(), match[0].casefold()) for match in WORD.finditer(text)]
    hits = [words[position] for position in sorted(_hit_positions(words, terms))]
    start, end = _window(text, words, hits)
    shown = _marked(text, start, end, hits)
    return f"{'… ' if start else ''}{shown}{' …' if end < len(text) else ''}"


def _hit_positions(words: Sequence[_Word], terms: Sequence[Term]) -> set[int]:
    """Where the words of the terms are; each term is looked for in all words as one string."""
    line = f" {' '.join(word.folded for word in words)} "
    # A word stands after the space at its place here; no word holds a space.
    spaces = [place for place, letter in enumerate(line) if letter == " "]
    positions: set[int] = set()
    for term in terms:
        if term.without:
            continue
        if term.stem is not None and term.language is not None:
            positions.update(
                position
                for position, word in enumerate(words)
                if stem(word.folded, term.language) == term.stem
            )
        wanted = f" {' '.join(term.words).casefold()}{'' if term.prefix else ' '}"
        marked = 0
        place = line.find(wanted)
        while place >= 0:
            first = bisect_left(spaces, place)
            after = first + len(term.words)
            # Where a phrase overlaps with itself, no word is marked twice.
            positions.update(range(max(first, marked), after))
            marked = after
            place = line.find(wanted, place + 1)
    return positions


def _window(text: str, words: Sequence[_Word], hits: Sequence[_Word]) -> tuple[int, int]:
    """Start and end of the part to show: on edges of words, as many different hits as fit."""
    if len(text) <= SNIPPET_CHARACTERS:
        return 0, len(text)
    first_hit = _densest(hits, SNIPPET_CHARACTERS - _LEAD_CHARACTERS).start if hits else 0
    earliest = min(max(0, first_hit - _LEAD_CHARACTERS), len(text) - SNIPPET_CHARACTERS)
    start = next((word.start for word in words if word.start >= earliest), 0) if earliest else 0
    end = start + SNIPPET_CHARACTERS
    if end >= len(text):
        return start, len(text)
    # A single word longer than the room is cut.
    return start, max((word.end for word in words if start < word.end <= end), default=end)


def _densest(hits: Sequence[_Word], room: int) -> _Word:
    """The first hit from which on most different ones lie within `room` characters.

    One pass: as the first hit of the window moves on, so does the one after its last.
    """
    best, most, after = hits[0], 0, 0
    within: Counter[str] = Counter()
    for position, first in enumerate(hits):
        while after < len(hits) and hits[after].end - first.start <= room:
            within[hits[after].folded] += 1
            after += 1
        if len(within) > most:
            best, most = first, len(within)
        if position < after:
            within[first.folded] -= 1
            if not within[first.folded]:
                del within[first.folded]
        else:
            # It is longer than the room, so it never came in.
            after = position + 1
    return best


def _marked(text: str, start: int, end: int, hits: Sequence[_Word]) -> str:
    pieces = []
    shown = start
    for hit in hits:
        if start <= hit.start and hit.end <= end:
            pieces.append(html.escape(text[shown : hit.start]))
            pieces.append(f"{MARK_OPEN}{html.escape(text[hit.start : hit.end])}{MARK_CLOSE}")
            shown = hit.end
    pieces.append(html.escape(text[shown:end]))
    return "".join(pieces)
