"""What a server process has told its viewers, in plain numbers: cheap to keep, read for metrics."""

from __future__ import annotations


class Counts:
    """Numbers of one server process. Totals only grow; the others tell how it is now.

    Whoever does something adds to them; nothing here is computed, and nobody waits.

    Attributes:
        websocket_viewers: WebSockets that are open now.
        sse_viewers: Event streams that are open now.
        websocket_deliveries: Messages handed to WebSockets, in all.
        sse_deliveries: Messages handed to event streams, in all.
        poll_viewers: Polls that are held now.
        poll_deliveries: Messages in answers to polls, in all.
        lagging: Viewers now that take nothing: their buffers are full.
        buffered_bytes: What waits in this process for viewers now, in bytes.
        coalesced: Messages that a lagging viewer was not sent, in all; it is told the newest
            state instead, and every entry, once it takes something again.
        stalled: Viewers that were closed since they took nothing for too long, in all.
        crowded_out: Viewers that were closed since all buffers together were too large, in all.
        fanouts: Messages told to the viewers of a job, in all.
        fanout_seconds: Time that it took to hand them over, in all.
    """

    __slots__ = (
        "buffered_bytes", "coalesced", "crowded_out", "fanout_seconds", "fanouts", "lagging",
        "poll_deliveries", "poll_viewers", "sse_deliveries", "sse_viewers", "stalled",
        "websocket_deliveries", "websocket_viewers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.websocket_viewers = 0
        self.sse_viewers = 0
        self.websocket_deliveries = 0
        self.sse_deliveries = 0
        self.poll_viewers = 0
        self.poll_deliveries = 0
        self.lagging = 0
        self.buffered_bytes = 0
        self.coalesced = 0
        self.stalled = 0
        self.crowded_out = 0
        self.fanouts = 0
        self.fanout_seconds = 0.0
