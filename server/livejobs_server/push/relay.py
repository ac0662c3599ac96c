"""Brings what Redis publishes to the hub, and what the hub wants to Redis and the database."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from livejobs.entries import channel, job_of
from livejobs.errors import DatabaseUnavailable
from livejobs.live import OUTAGES
from livejobs.settings import Settings

from .channels import Channels, stop_if_cancelled
from .errands import Errands, FeedReader
from .exchange import Action, Read, Snapshot, Subscribe, Unsubscribe
from .feed_exchange import FeedAction, Leave, Listen, ListJobs, ReadJobs
from .feeds import Feeds
from .hub import Hub
from .outage import Outage
from .rounds import ChangesReader, Rounds

BATCHES: Final = 4
"""Batches of reads under way at a time."""
BATCH_READS: Final = 16
"""Reads in one batch, at most."""
READ_SECONDS: Final = 10.0
"""A batch that takes longer has failed."""
RETRY_SECONDS: Final = (0.1, 2.0)
"""First and longest pause before connecting again, or reading again what failed."""
STEADY_SECONDS: Final = 5.0
"""A connection that lasted so long makes the pauses begin anew."""
OUTAGE_SECONDS: Final = 0.2
"""A connection that is back within this time was not away."""
LAST_READ_SECONDS: Final = 0.5
"""How long reads under way may go on when the relay ends."""
STOP_SECONDS: Final = 2.0
"""How long they may take to end when they are cancelled then."""

logger = logging.getLogger("livejobs.relay")


class Reader(FeedReader, ChangesReader, Protocol):
    """Where snapshots come from, listings of feeds, and what changed since the last round."""

    async def read(self, reads: Sequence[Read]) -> Mapping[int, Snapshot]:
        """Answer reads, by ticket; one that is left out has failed.

        Raises:
            DatabaseUnavailable: All have.
        """
        ...


class Deliveries(Protocol):
    """Who traces that the ends of jobs are told."""

    def told(self, job_id: str, began: int) -> None:
        """The end of a job was told, from `began` in nanoseconds since the epoch until now."""
        ...


class Pause:
    """How long to wait before the next attempt: longer each time, and never twice the same."""

    def __init__(self) -> None:
        self._failures = 0

    def next(self) -> float:
        """Seconds."""
        first, longest = RETRY_SECONDS
        pause = min(longest, first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return random.uniform(pause / 2, pause)

    def reset(self) -> None:
        """It went well."""
        self._failures = 0


class Relay:
    """The shell of hub and feeds. Everything happens on the event loop of `run`.

    Whoever calls the hub or the feeds calls `kick` afterwards.

    Args:
        hub: Who watches which job.
        feeds: Who follows which feed.
        reader: Where all of it is read.
        settings: Where Redis is.

    Attributes:
        outage: Whether updates come from the database for now.
        messages: What Redis has published to this process, in all.
        connects: Connections to Redis that it had, in all.
        reads: Jobs read for viewers, in all.
        read_failures: Those that could not be read.
        deliveries: Is told of each end that was told; None: nobody traces them.
    """

    def __init__(self, hub: Hub, feeds: Feeds, reader: Reader, settings: Settings) -> None:
        self.outage = Outage()
        self.messages = 0
        self.connects = 0
        self.reads = 0
        self.read_failures = 0
        self.deliveries: Deliveries | None = None
        self._hub = hub
        self._feeds = feeds
        self._reader = reader
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: Channels | None = None
        self._batches: set[asyncio.Task[None]] = set()
        self._errands = Errands(feeds, reader, self.kick)
        self._rounds = Rounds(hub, feeds, reader, self.outage, self.kick)
        self._outage_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._kicked = False
        self._retry: asyncio.TimerHandle | None = None
        self._retry_pause = Pause()
        self._reads_fail = False

    @property
    def connected(self) -> bool:
        """Whether there is a pub/sub connection."""
        return self._channels is not None

    @property
    def lag(self) -> float:
        """Seconds from published to told, as it was last; 0 without a connection."""
        return 0.0 if self._channels is None else self._channels.lag

    def kick(self) -> None:
        """Do soon what hub and feeds want; cheap to call, and often."""
        if self._loop is not None and not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._pump)

    async def run(self) -> None:
        """Work until cancelled. It may be run again afterwards, with the same hub."""
        self._loop = asyncio.get_running_loop()
        self._kicked = False
        self.kick()
        self._expect_connection()
        rounds = asyncio.create_task(self._rounds.run())
        try:
            await self._stay_connected()
        finally:
            self._rounds.stop()
            await self._stop(rounds)

    async def _stop(self, rounds: asyncio.Task[None]) -> None:
        self._loop = None
        for timer in (self._retry, self._outage_timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        self._retry = self._outage_timer = self._tick_timer = None
        # A read that is broken off leaves its connection, and on SQLite a thread, at work.
        tasks = {rounds, *self._batches, *self._errands.under_way}
        _, hanging = await asyncio.wait(tasks, timeout=LAST_READ_SECONDS)
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=STOP_SECONDS)

    # -- the connection -------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        pause, reported = Pause(), False
        assert self._loop is not None
        while True:
            began = self._loop.time()
            channels = Channels(self._settings, self._subscribed, self._published)
            try:
                await channels.open()
                logger.info("connected to Redis")
                reported = False
                await self._listen(channels)
            except* OUTAGES as outage:
                if not reported:
                    logger.warning("Redis is away, trying again: %s", _reason(outage))
                reported = True
            finally:
                await channels.close()
            stop_if_cancelled()
            if self._loop.time() - began > STEADY_SECONDS:
                pause.reset()
            await asyncio.sleep(pause.next())

    async def _listen(self, channels: Channels) -> None:
        self._channels = channels
        self.connects += 1
        self._hub.connected()
        self._feeds.connected()
        if self._outage_timer is not None:
            self._outage_timer.cancel()
            self._outage_timer = None
        self._note_subscriptions()
        self.kick()
        try:
            await channels.run()
        finally:
            self._channels = None
            self._hub.disconnected()
            self._feeds.disconnected()
            self._expect_connection()
            self.kick()

    def _expect_connection(self) -> None:
        """If there is none soon, that is an outage."""
        if self._loop is not None and self._outage_timer is None:
            self._outage_timer = self._loop.call_later(OUTAGE_SECONDS, self.outage.begin)

    def _note_subscriptions(self) -> None:
        """An outage ends when messages come again of all that is watched."""
        if self.outage.lasts and self._hub.is_subscribed and self._feeds.is_subscribed:
            self.outage.end()

    def _subscribed(self, name: str) -> None:
        job_id = job_of(name)
        if job_id is None:
            self._feeds.subscribed(name)
        else:
            self._hub.subscribed(job_id)
        self._note_subscriptions()
        self.kick()

    def _published(self, name: str, data: bytes) -> None:
        self.messages += 1
        job_id = job_of(name)
        if job_id is None:
            self._feeds.published(name, data)
        elif self.deliveries is None or not is_end(data):
            self._hub.published(job_id, data)
        else:
            began = time.time_ns()
            self._hub.published(job_id, data)
            self.deliveries.told(job_id, began)
        self.kick()

    # -- what is wanted -------------------------------------------------------------------------

    def _pump(self) -> None:
        self._kicked = False
        if self._loop is None:
            return
        self._tick_feeds(self._loop)
        if self._hub.proceed():
            self.kick()
        while self._execute():
            pass
        for action in self._feeds.take_actions(self._errands.room):
            if isinstance(action, ListJobs | ReadJobs):
                self._errands.begin(action)
            elif self._channels is not None:
                _tell(self._channels, action)
        if (self._hub.postponed or self._feeds.postponed) and self._retry is None:
            self._retry = self._loop.call_later(self._retry_pause.next(), self._retry_reads)

    def _tick_feeds(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the feeds tell what is due, and come back for the rest."""
        self._feeds.tick(loop.time())
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        due = self._feeds.next_due
        self._tick_timer = None if due is None else loop.call_at(due, self.kick)

    def _execute(self) -> bool:
        """Do what is wanted now; whether it took as many reads as it could."""
        room = BATCH_READS if len(self._batches) < BATCHES else 0
        reads: list[Read] = []
        for action in self._hub.take_actions(room):
            if isinstance(action, Read):
                reads.append(action)
            elif self._channels is not None:
                _tell(self._channels, action)
        if reads:
            batch = asyncio.create_task(self._read(reads))
            self._batches.add(batch)
            batch.add_done_callback(self._read_is_over)
        return len(reads) == BATCH_READS

    def _retry_reads(self) -> None:
        self._retry = None
        self._hub.retry_reads()
        self._feeds.retry_reads()
        self.kick()

    # -- reads ----------------------------------------------------------------------------------

    def _read_is_over(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        self.kick()

    async def _read(self, reads: list[Read]) -> None:
        """Read a batch and hand it to the hub; one read that breaks does not fail the others."""
        waiting = {read.ticket: read for read in reads}
        self.reads += len(reads)
        try:
            await self._answer(reads, waiting)
        except Exception as error:
            if len(reads) > 1 and not isinstance(error, DatabaseUnavailable | TimeoutError):
                for read in reads:
                    await self._read([waiting.pop(read.ticket)])
                return
            if not self._reads_fail:
                logger.warning("jobs cannot be read, trying again: %s", _reason(error))
            self._reads_fail = True
        finally:
            self.read_failures += len(waiting)
            for read in waiting.values():
                self._hub.read_failed(read)

    async def _answer(self, reads: list[Read], waiting: dict[int, Read]) -> None:
        async with asyncio.timeout(READ_SECONDS):
            snapshots = await self._reader.read(reads)
        for read in reads:
            snapshot = snapshots.get(read.ticket)
            if snapshot is not None:
                self._hub.snapshot(waiting.pop(read.ticket), snapshot)
        if not (self._hub.postponed or self._feeds.postponed):
            self._retry_pause.reset()
            self._reads_fail = False


def is_end(data: bytes) -> bool:
    """Whether a published message is the view of a job that is over."""
    return data.partition(b"\n")[0].endswith(b" final")


def _tell(channels: Channels, action: Action | FeedAction) -> None:
    match action:
        case Subscribe(job_id):
            channels.subscribe(channel(job_id))
        case Unsubscribe(job_id):
            channels.unsubscribe(channel(job_id))
        case Listen(name):
            channels.subscribe(name)
        case Leave(name):
            channels.unsubscribe(name)


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
