"""HTML: the text a reader sees, without scripts and styles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, PageElement, PreformattedString, Tag

from livejobs.file_kinds import IngestError

from .pages import first_line
from .plain import clean, decode

MAX_HTML_BYTES: Final = 10 * 1024 * 1024
"""The tree of a page takes some forty times the page's size in memory."""

_UNSEEN = frozenset(
    ["head", "iframe", "noscript", "object", "script", "style", "svg", "template", "textarea"]
)
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|caption|dd|details|dialog|div|dl|dt|fieldset|figcaption|"
    "figure|footer|form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|summary|table|tbody|tfoot|"
    "thead|tr|ul"
)
_CELLS = frozenset(["td", "th"])
# Cleaned text has no control characters, so these stand for nothing else.
_BREAK = "\x1e"
_LINE = "\x1f"
_SPACES = re.compile(r"[ \t\n\xa0]+")
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*>")


def read_html(content: bytes, name: str) -> tuple[str | None, str]:
    """Title (None: it has none) and text of a page, a blank line between blocks.

    Raises:
        IngestError: The page is too large.
    """
    if len(content) > MAX_HTML_BYTES:
        raise IngestError(
            "file_too_large",
            f"{name} is larger than {MAX_HTML_BYTES // 1024**2} MB, which is the most for a web "
            "page: send it in parts, or as text.",
        )
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    markup = _XML_DECLARATION.sub("", clean(decode(content, declared)))
    if "<" not in markup:
        return None, markup
    soup = BeautifulSoup(markup, "lxml")
    first_heading = soup.h1.get_text() if soup.h1 else None
    title = first_line(soup.title.get_text() if soup.title else None, first_heading)
    return title, _text(soup)


def _text(soup: BeautifulSoup) -> str:
    blocks = "".join(_parts(soup)).split(_BREAK)
    lines = (_SPACES.sub(" ", block).replace(_LINE, "\n").strip() for block in blocks)
    return "\n\n".join(line for line in lines if line)


def _parts(root: Tag) -> Iterator[str]:
    """Strings and breaks in their order. Without recursion: pages nest as deep as they like."""
    stack: list[tuple[Tag, Iterator[PageElement]]] = [(root, iter(root.children))]
    preformatted = 0
    while stack:
        tag, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            preformatted -= tag.name == "pre"
            yield _edge(tag)
        elif isinstance(child, Tag):
            if child.name == "br":
                yield _LINE
            elif child.name not in _UNSEEN:
                stack.append((child, iter(child.children)))
                preformatted += child.name == "pre"
                yield _edge(child)
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            yield child.replace("\n", _LINE) if preformatted else str(child)


def _edge(tag: Tag) -> str:
    if _BLOCK.fullmatch(tag.name):
        return _BREAK
    return " " if tag.name in _CELLS else ""
