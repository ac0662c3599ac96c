"""Lines of log and pieces of output, and the entries that they become."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from .views import storable_text, to_json

MAX_ENTRY_BYTES = 64 * 1024
"""Text in one entry; longer output becomes several."""
MAX_LINE_CHARACTERS = 8 * 1024
MAX_MESSAGE_CHARACTERS = 1000


class Line(NamedTuple):
    """A line of the log; `at` is ISO text."""

    at: str
    level: str
    text: str


class Piece(NamedTuple):
    """A piece of output, of a stream or, None, of the only one."""

    stream: str | None
    text: str


def bodies(buffer: deque[Line | Piece]) -> Iterator[tuple[str, str]]:
    """Kind and body of each entry that the buffer makes; it is empty afterwards."""
    while buffer:
        if isinstance(buffer[0], Line):
            yield "log", _lines(buffer)
        else:
            stream = buffer[0].stream
            for text in _texts(buffer, stream):
                body = f'"text":{to_json(storable_text(text))}}}'
                named = "" if stream is None else f'"stream":{to_json(shortened(stream, 100))},'
                yield "output", named + body


def _lines(buffer: deque[Line | Piece]) -> str:
    lines: list[dict[str, str]] = []
    size = 0
    while buffer and size < MAX_ENTRY_BYTES:
        line = buffer[0]
        if not isinstance(line, Line):
            break
        buffer.popleft()
        text = shortened(line.text, MAX_LINE_CHARACTERS)
        lines.append({"at": line.at, "level": shortened(line.level, 20), "text": text})
        size += len(text) + 50
    return f'"lines":{to_json(lines)}}}'


def _texts(buffer: deque[Line | Piece], stream: str | None) -> Iterator[str]:
    """The pieces of one stream that follow each other, joined, in parts that fit an entry."""
    parts: list[str] = []
    size = 0
    while buffer:
        piece = buffer[0]
        if not isinstance(piece, Piece) or piece.stream != stream:
            break
        buffer.popleft()
        begin = 0
        while begin < len(piece.text):
            part = piece.text[begin : begin + MAX_ENTRY_BYTES - size]
            parts.append(part)
            begin, size = begin + len(part), size + len(part)
            if size == MAX_ENTRY_BYTES:
                yield "".join(parts)
                parts, size = [], 0
    if parts:
        yield "".join(parts)


def shortened(value: Any, most: int = MAX_MESSAGE_CHARACTERS) -> str:
    """`value` as text of no more than `most` characters."""
    text = storable_text(str(value))
    return text if len(text) <= most else text[: most - 1] + "…"
