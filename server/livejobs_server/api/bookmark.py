"""Where a client that polls feeds stands: a time, and what it knows of the moments before it.

Reads of what changed since a time begin a little earlier, since a change is seen when it is
committed but bears the time of its statement. A connection that stays knows what it has told. A
poll forgets everything, so its client carries that: `since` is the time, and behind a mark the
hashes of what was told of those moments.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Final

from ..push.feed_exchange import OVERLAP_SECONDS
from ..push.subscriptions import MARK
from ..push.times import microseconds_of, read_time, time_text
from ..push.wire import GONE, PROGRESS, VIEWS, Frame

MAX_FACTS: Final = 900
"""Hashes in one `since`; more than this make a request too long."""
_FACT_BYTES: Final = 6
_OVERLAP: Final = int(OVERLAP_SECONDS * 1_000_000)
_MORE: Final = "+"
"""Says that not all hashes found room."""


class Bookmark:
    """What a client handed back.

    Attributes:
        at: The time, in microseconds since the epoch; None: it begins.
        facts: Hashes of what it knows.
        is_whole: These are all that matter.
    """

    def __init__(
        self, at: int | None, facts: frozenset[bytes] = frozenset(), is_whole: bool = True
    ) -> None:
        self.at = at
        self.facts = facts
        self.is_whole = is_whole

    @classmethod
    def read(cls, since: str | None) -> Bookmark:
        """Out of a request; rubbish begins anew."""
        time, _, rest = (since or "").partition(MARK)
        packed = rest.removeprefix(_MORE)
        try:
            at = read_time(time)
            joined = base64.urlsafe_b64decode(packed)
        except (ValueError, OverflowError, binascii.Error):
            return cls(None)
        pieces = range(0, len(joined), _FACT_BYTES)
        facts = frozenset(joined[start : start + _FACT_BYTES] for start in pieces)
        return cls(at, facts, packed == rest)

    def knows(self, frame: Frame) -> bool:
        """Whether the client has been told this."""
        facts = facts_of(frame)
        return bool(facts) and facts <= self.facts

    def is_news(self, frame: Frame) -> bool:
        """Whether a message that it may not know is worth an answer of its own.

        Where not all hashes found room, a change of the time before may be known; it is told
        again, but with the next one that is not.
        """
        if self.is_whole or self.at is None:
            return True
        changed = changed_at(frame)
        return changed is None or changed > self.at


def bookmark_text(at: int, told: Iterable[Frame]) -> str:
    """The `since` of an answer.

    Args:
        at: The client knows what changed until then, in microseconds since the epoch.
        told: Messages that it has been told, now or before.
    """
    facts: dict[bytes, None] = {}
    for frame in told:
        changed = changed_at(frame)
        if changed is None or changed >= at - _OVERLAP:
            facts |= dict.fromkeys(facts_of(frame))
    if not facts:
        return time_text(at)
    newest = list(facts)[-MAX_FACTS:]
    packed = base64.urlsafe_b64encode(b"".join(newest)).decode("ascii")
    return f"{time_text(at)}{MARK}{_MORE if len(newest) < len(facts) else ''}{packed}"


def facts_of(frame: Frame) -> frozenset[bytes]:
    """Hashes of what a message tells; empty for one that always counts."""
    if frame.kind == GONE:
        return frozenset({_fact("gone", frame.job_id, 0, 0)})
    facts = set()
    if frame.kind in VIEWS:
        facts.add(_fact("view", frame.job_id, frame.version, 0))
    if frame.seq and frame.kind in VIEWS | {PROGRESS}:
        facts.add(_fact("progress", frame.job_id, frame.attempt, frame.seq))
    return frozenset(facts)


def changed_at(frame: Frame) -> int | None:
    """When the job of a view changed, in microseconds since the epoch; None: it does not say."""
    if frame.kind not in VIEWS:
        return None
    changed = json.loads(frame.payload)["job"]["updated_at"]
    return microseconds_of(datetime.fromisoformat(changed))


def _fact(kind: str, job_id: str, major: int, minor: int) -> bytes:
    text = f"{kind} {major} {minor} {job_id}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_FACT_BYTES).digest()
