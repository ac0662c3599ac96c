"""What a person types into the search, and the text that is shown for a hit."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livejobs.search_query import (
    SNIPPET_CHARACTERS,
    Term,
    fts5_query,
    parse_query,
    snippet,
    tsquery,
)


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("quiet garden", [Term(("quiet",)), Term(("garden",))]),
        ('"quiet garden"', [Term(("quiet", "garden"))]),
        ('"quiet garden', [Term(("quiet", "garden"))]),
        ("“quiet garden” gate", [Term(("quiet", "garden")), Term(("gate",))]),
        ("gard*", [Term(("gard",), True)]),
        ('"quiet gard"*', [Term(("quiet", "gard"), True)]),
        ("gar*den", [Term(("gar", "den"))]),
        ("well-known", [Term(("well", "known"))]),
        ("livejobs_jobs", [Term(("livejobs", "jobs"))]),
        ("garden garden", [Term(("garden",))]),
        ("AND (NOT", [Term(("AND",)), Term(("NOT",))]),
        ("cafe\u0301", [Term(("café",))]),
        ("2024-11-15", [Term(("2024", "11", "15"))]),
        ("garden -gate", [Term(("garden",)), Term(("gate",), without=True)]),
        ('garden -"quiet gate"', [Term(("garden",)), Term(("quiet", "gate"), without=True)]),
        ("garden -ga*", [Term(("garden",)), Term(("ga",), True, True)]),
        ("garden - gate", [Term(("garden",)), Term(("gate",))]),
        ("-garden", []),
    ],
)
def test_query_is_read_as_terms(query: str, terms: list[Term]) -> None:
    assert parse_query(query) == tuple(terms)


@pytest.mark.parametrize("query", ["", "   ", '"', '""', "*", '"*"', "(&|!", "\x00", "\ud800", "_"])
def test_query_without_a_word_has_no_terms(query: str) -> None:
    assert parse_query(query) == ()


def test_query_is_looked_at_up_to_a_limit() -> None:
    (term,) = parse_query("x" * 5000)
    assert len(term.words[0]) == 500


def test_word_has_a_stem_in_a_language_but_not_in_a_phrase() -> None:
    terms = parse_query('Gardens "quiet gardens" garden* well-known -gates', "english")
    assert [term.stem for term in terms] == ["garden", None, None, None, "gate"]


def test_terms_are_rendered_for_both_databases() -> None:
    terms = parse_query('"quiet garden" gate* houses -walls', "english")
    assert fts5_query(terms) == (
        '(text : "quiet garden" AND text : "gate"* AND (text : "houses" OR stems : "hous")) '
        'NOT ((text : "walls" OR stems : "wall"))'
    )
    assert tsquery(terms) == (
        "('quiet':A <-> 'garden':A) & ('gate':*A) & ('houses':A | 'hous':B) "
        "& !('walls':A | 'wall':B)"
    )


@given(st.text(), st.sampled_from([None, "english", "turkish", "greek"]))
def test_rendered_terms_hold_only_words_and_our_own_operators(
    query: str, language: str | None
) -> None:
    terms = parse_query(query, language)
    words = [word for term in terms for word in (*term.words, term.stem or "x")]
    assert all(word.isalnum() for word in words)
    rest = re.sub(r'(text|stems) : "[^"]*"\*?|AND|NOT|OR|[() ]', "", fts5_query(terms))
    assert rest == ""
    assert re.sub(r"'[^']*':\*?[AB]|<->|[&|!() ]", "", tsquery(terms)) == ""


def test_snippet_marks_forms_in_a_language_and_nothing_unwanted() -> None:
    shown = snippet("A garden of gardens, a gate", parse_query("gardens -gate", "english"))
    assert shown == "A <mark>garden</mark> of <mark>gardens</mark>, a gate"


def test_snippet_marks_words_in_any_case() -> None:
    shown = snippet("Quiet  gardens\nneed a garden gate.", parse_query("GARDEN quiet"))
    assert shown == "<mark>Quiet</mark> gardens need a <mark>garden</mark> gate."


def test_snippet_marks_a_phrase_only_where_it_stands() -> None:
    shown = snippet("a quiet house, a quiet garden", parse_query('"quiet garden"'))
    assert shown == "a quiet house, a <mark>quiet</mark> <mark>garden</mark>"


def test_snippet_marks_beginnings() -> None:
    shown = snippet("garden gardener ungardened", parse_query("gard*"))
    assert shown == "<mark>garden</mark> <mark>gardener</mark> ungardened"


def test_snippet_escapes_the_text() -> None:
    shown = snippet("<script>alert('x')</script> & more", parse_query("alert more"))
    assert "<script>" not in shown
    assert "<mark>alert</mark>" in shown
    assert html.unescape(shown.replace("<mark>", "").replace("</mark>", "")) == (
        "<script>alert('x')</script> & more"
    )


def test_snippet_shows_the_place_with_most_different_hits() -> None:
    text = f"{'garden garden ' * 30}{'filler ' * 60}a quiet garden gate {'filler ' * 60}"
    shown = snippet(text, parse_query("quiet garden gate"))
    assert "<mark>quiet</mark> <mark>garden</mark> <mark>gate</mark>" in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")


def test_snippet_without_a_hit_is_the_beginning() -> None:
    shown = snippet("word " * 100, parse_query("nothing"))
    assert shown.startswith("word word")
    assert shown.endswith("word …")


def steps(work: Callable[[], object]) -> int:
    """How many of the interpreter's instructions a call takes."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    for _ in range(2):  # Python 3.12 tells of them only when it has been asked to before.
        count = 0
        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "query", ["a", "a*", '"a a a"', f'"{"a " * 100}"', "a* aa* aaa* a b c d e"]
)
def test_snippet_costs_no_more_for_each_hit_where_there_are_many(query: str) -> None:
    terms = parse_query(query)
    few = steps(partial(snippet, "a " * 500, terms))
    many = steps(partial(snippet, "a " * 2000, terms))
    assert many < 5 * few


def test_snippet_of_many_hits_is_the_first_place_with_most_different_ones() -> None:
    shown = snippet(f"{'a ' * 1000}{'a b ' * 1000}{'a b c ' * 1000}", parse_query("a b c"))
    assert shown.endswith("<mark>a</mark> <mark>b</mark> <mark>c</mark> …")
    assert shown.count("<mark>c</mark>") == 1


@given(
    st.text(alphabet="ab <&ß大_- \n", max_size=600),
    st.text(alphabet='ab ß大*"', max_size=20),
)
def test_snippet_is_a_bounded_part_of_the_text(text: str, query: str) -> None:
    shown = snippet(text, parse_query(query))
    plain = html.unescape(re.sub("</?mark>", "", shown))
    assert len(plain) <= SNIPPET_CHARACTERS + 4
    assert plain.removeprefix("… ").removesuffix(" …").strip() in " ".join(text.split())
