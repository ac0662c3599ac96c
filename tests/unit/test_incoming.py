"""WebSocket frames of a peer, in whatever pieces they arrive."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from livejobs_server.push.incoming import Heard, Incoming

MAX_BYTES = 1000


def frame(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def hear(incoming: Incoming, *pieces: bytes) -> Heard:
    """All that the pieces amount to."""
    heard = Heard()
    for piece in pieces:
        found = incoming.feed(piece)
        heard.messages += found.messages
        heard.answer += found.answer
        heard.closed = heard.closed or found.closed
    return heard


def close_code(answer: bytes) -> int:
    """The code of the close frame that an answer ends with."""
    at = answer.index(b"\x88")
    code: int = struct.unpack("!H", answer[at + 2 : at + 4])[0]
    return code


def test_text_is_a_message_and_leaves_nothing_behind() -> None:
    incoming = Incoming(MAX_BYTES)
    assert hear(incoming, frame(Opcode.TEXT, "grüß dich".encode())) == Heard(["grüß dich"])
    assert incoming.idle


def test_binary_message_is_none() -> None:
    assert hear(Incoming(MAX_BYTES), frame(Opcode.BINARY, b"\xff")).messages == [None]


def test_message_in_fragments_with_a_ping_in_between() -> None:
    incoming = Incoming(MAX_BYTES)
    heard = hear(
        incoming,
        frame(Opcode.TEXT, b"one ", fin=False),
        frame(Opcode.PING, b"?"),
        frame(Opcode.CONT, b"two ", fin=False),
        frame(Opcode.CONT, b"three"),
    )
    assert heard == Heard(["one two three"], answer=b"\x8a\x01?")
    assert incoming.idle


def test_character_may_be_split_between_fragments() -> None:
    letter = "ü".encode()
    heard = hear(
        Incoming(MAX_BYTES),
        frame(Opcode.TEXT, letter[:1], fin=False) + frame(Opcode.CONT, letter[1:]),
    )
    assert heard.messages == ["ü"]


def test_pong_is_nothing() -> None:
    incoming = Incoming(MAX_BYTES)
    assert hear(incoming, frame(Opcode.PONG, b"late")) == Heard()
    assert incoming.idle


def test_close_is_echoed_and_ends_it() -> None:
    heard = hear(
        Incoming(MAX_BYTES),
        frame(Opcode.TEXT, b"bye") + frame(Opcode.CLOSE, Close(1000, "done").serialize()),
    )
    assert heard.messages == ["bye"]
    assert heard.closed
    assert close_code(heard.answer) == 1000


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda: Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (lambda: frame(Opcode.CONT, b"of nothing"), 1002),
        (lambda: frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"), 1002),
        (lambda: b"\x83\x80\0\0\0\0", 1002),  # an opcode that there is not
        (lambda: b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (lambda: b"\x09\x80\0\0\0\0", 1002),  # a control frame in fragments
        (lambda: b"\x89\xfe\x00\x7e" + bytes(4 + 126), 1002),  # a control frame too long
        (lambda: frame(Opcode.CLOSE, b"\x03"), 1002),  # half a code
        (lambda: frame(Opcode.CLOSE, b"\x03\xed"), 1002),  # a code that is never sent, 1005
        (lambda: frame(Opcode.CLOSE, b"\x00\x07"), 1002),  # a code that there is not
        (lambda: frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),  # a reason that is not UTF-8
        (lambda: frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.BINARY, b"b"), 1002),
        (lambda: frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"("), 1007),
        (lambda: frame(Opcode.PING) + b"\x8a\x05wrong", 1002),  # a pong without a mask
        (lambda: frame(Opcode.TEXT, b"\xff"), 1007),
        (lambda: b"\x81\xff" + (2**40).to_bytes(8, "big"), 1009),
        (lambda: frame(Opcode.TEXT, bytes(MAX_BYTES + 1)), 1009),
        (
            lambda: (
                frame(Opcode.TEXT, bytes(MAX_BYTES), fin=False) + frame(Opcode.CONT, b"!", fin=True)
            ),
            1009,
        ),
    ],
)
def test_what_breaks_a_rule_closes_with_its_code(wrong: Callable[[], bytes], code: int) -> None:
    heard = hear(Incoming(MAX_BYTES), wrong())
    assert heard.closed
    assert not heard.messages
    assert close_code(heard.answer) == code


def test_frame_that_is_too_long_is_refused_before_it_arrives() -> None:
    incoming = Incoming(MAX_BYTES)
    assert hear(incoming, b"\x81\xff" + (2**40).to_bytes(8, "big")).closed


def test_bytes_after_the_end_are_nothing() -> None:
    incoming = Incoming(MAX_BYTES)
    closing = frame(Opcode.CLOSE, Close(1000, "").serialize())
    assert hear(incoming, closing + frame(Opcode.TEXT, b"and another thing")).messages == []


FRAMES = [
    frame(Opcode.TEXT, b"first"),
    frame(Opcode.PING, b"ping"),
    frame(Opcode.TEXT, b"x" * 500),
    frame(Opcode.TEXT, b"frag", fin=False),
    frame(Opcode.PONG),
    frame(Opcode.CONT, b"ments"),
    frame(Opcode.BINARY, b"\0"),
]


@given(cuts=st.lists(st.integers(0, sum(map(len, FRAMES))), max_size=20))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    data = b"".join(FRAMES)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    incoming = Incoming(MAX_BYTES)
    heard = hear(incoming, *pieces)
    assert heard == Heard(["first", "x" * 500, "fragments", None], answer=b"\x8a\x04ping")
    assert incoming.idle
