"""What a WebSocket peer sends, read without keeping a parser while it sends nothing.

The frames are parsed, and control frames answered, by the sans-I/O protocol of `websockets`. It is
made when the first whole frame is there and dropped after the last, so a peer that only listens
costs a reference. All that is done here is to wait until a frame is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

_LENGTH_BYTES: Final = {126: 2, 127: 8}
_MASK_BYTES: Final = 4
_MASKED: Final = 0x80


@dataclass(slots=True)
class Heard:
    """What some bytes of a peer amount to.

    Attributes:
        messages: The messages completed, in order; None: a binary one.
        answer: Bytes to send back: pongs, and the close frame where one is due.
        closed: The peer has closed, or broke the protocol: nothing more is to be read.
    """

    messages: list[str | None] = field(default_factory=list)
    answer: bytes = b""
    closed: bool = False


class Incoming:
    """The bytes of one peer.

    Args:
        max_bytes: Largest message, in bytes; a larger one closes the connection with 1009.
    """

    __slots__ = ("_max_bytes", "_parts", "_protocol", "_rest", "_text")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._protocol: Protocol | None = None
        # The message that comes in pieces, and whether it is text.
        self._parts: list[bytes] | None = None
        self._text = False

    @property
    def idle(self) -> bool:
        """Whether nothing is begun: the next byte begins a frame and a message."""
        return not self._rest and self._protocol is None

    def feed(self, data: bytes) -> Heard:
        """Take in bytes."""
        data = self._rest + data if self._rest else data
        whole = self._whole(data)
        self._rest = data[whole:]
        if not whole:
            return Heard()
        protocol = self._protocol or Protocol(Side.SERVER, max_size=self._max_bytes)
        self._protocol = protocol
        protocol.receive_data(data[:whole])
        heard = Heard()
        for frame in protocol.events_received():
            if isinstance(frame, Frame):
                self._take(frame, heard)
        heard.closed = protocol.state is not State.OPEN
        heard.answer = b"".join(protocol.data_to_send())
        if heard.closed:
            self._rest = b""
        elif self._parts is None:
            self._protocol = None
        return heard

    def _whole(self, data: bytes) -> int:
        """How many of the bytes may be parsed: whole frames, and all where one breaks a rule."""
        end = 0
        while (size := self._frame_size(data, end)) is not None:
            if size > self._max_bytes + 14:
                # What is wrong is in the head; the rest need not be waited for.
                return len(data)
            if end + size > len(data):
                break
            end += size
        return end

    def _frame_size(self, data: bytes, start: int) -> int | None:
        """Bytes of the frame that begins at `start`; None while its head is not whole."""
        if len(data) < start + 2:
            return None
        length = data[start + 1] & ~_MASKED
        head = 2 + _LENGTH_BYTES.get(length, 0)
        if length in _LENGTH_BYTES:
            if len(data) < start + head:
                return None
            length = int.from_bytes(data[start + 2 : start + head], "big")
        if data[start + 1] & _MASKED:
            head += _MASK_BYTES
        return head + length

    def _take(self, frame: Frame, heard: Heard) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
            self._parts = []
        elif frame.opcode is not Opcode.CONT:
            return
        if self._parts is None:
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        message, self._parts = b"".join(self._parts), None
        if not self._text:
            heard.messages.append(None)
            return
        try:
            heard.messages.append(message.decode())
        except UnicodeDecodeError:
            assert self._protocol is not None
            self._protocol.fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
