"""Redis as livejobs uses it: publishing what is new, reading what a late viewer missed.

The sync and the async client send the same commands, which are built once, here.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from .entries import (
    PUBLISH_SCRIPT,
    Cursor,
    Entry,
    ProgressReport,
    ViewReport,
    deletion_messages,
    entries_key,
    feed_channels,
    head_key,
    script_arguments,
    script_keys,
    view_report,
)
from .errors import RedisUnavailable
from .models import view_of
from .settings import Settings
from .statements import JobRow

TIMEOUT_SECONDS = 1.0
"""How long one command may take; the database is there for what Redis does not answer."""

OUTAGES = (RedisError, RedisClusterException, OSError)
"""What a Redis that does not answer raises, or a cluster of which no node does."""
ASYNC_OUTAGES = (*OUTAGES, RuntimeError)
"""… and what uvloop raises where the connection has been closed since it was last looked at."""
_log = logging.getLogger("livejobs.live")


class Head(NamedTuple):
    """What Redis knows newest of a job.

    Attributes:
        attempt: Attempt that spoke last.
        n: Number of its last entry.
        version: Version of the view published last.
        seq: Number of its newest progress; 0: none.
        progress: That progress as JSON, or None.
    """

    attempt: int
    n: int
    version: int
    seq: int
    progress: bytes | None


StoredEntry = tuple[Cursor, str, bytes]
"""Cursor, kind (log or output), and the wire message."""


class Publication(NamedTuple):
    """One call of the publish script.

    Attributes:
        job_id: The job.
        attempt: Attempt that speaks.
        last_n: Number of the last entry known to the caller.
        feeds: Channels on which view and progress are published too, see `feed_channels`.
    """

    job_id: str
    attempt: int
    last_n: int
    entries: Sequence[Entry] = ()
    progress: ProgressReport | None = None
    view: ViewReport | None = None
    feeds: Sequence[str] = ()


def publication_of(row: JobRow) -> Publication:
    """What tells viewers of a row after a change of status."""
    return Publication(
        row.id,
        row.attempt,
        row.last_n,
        view=view_report(view_of(row), row.progress_seq),
        feeds=feed_channels(row.owner, row.parent_id),
    )


class Outcome(NamedTuple):
    """What the publish script answered.

    Attributes:
        accepted: False: a newer attempt has spoken; nothing was published.
        attempt: The newest attempt that has spoken.
        unkept: Entries that Redis could not keep; the database has them.
    """

    accepted: bool
    attempt: int
    unkept: int


def _arguments(publication: Publication, settings: Settings) -> list[str | int]:
    return script_arguments(
        json.dumps(publication.job_id),
        publication.attempt,
        publication.last_n,
        ttl=settings.entries_ttl,
        keep=settings.entries_max,
        sharded=settings.redis_cluster,
        entries=publication.entries,
        progress=publication.progress,
        view=publication.view,
        feeds=publication.feeds,
    )


def _outcome(answer: Sequence[Any]) -> Outcome:
    return Outcome(bool(answer[0]), int(answer[1]), int(answer[2]))


def _left_to_tell(
    publication: Publication, answer: Sequence[Any]
) -> list[tuple[str, bytes | str, bytes]]:
    """Commands for what the script could not publish: on a cluster, the messages for feeds."""
    return [
        ("SPUBLISH", channel, message) for channel in publication.feeds for message in answer[3:]
    ]


def _forgetting(row: JobRow, settings: Settings) -> Iterator[tuple[str | bytes, ...]]:
    """Commands that drop what Redis has of a job, and tell of its deletion."""
    publish = "SPUBLISH" if settings.redis_cluster else "PUBLISH"
    yield "DEL", head_key(row.id), entries_key(row.id)
    for name, message in deletion_messages(row.id, row.owner, row.parent_id):
        yield publish, name, message


def _head(fields: dict[bytes, bytes]) -> Head | None:
    if not fields:
        return None
    return Head(
        int(fields.get(b"attempt", 0)),
        int(fields.get(b"n", 0)),
        int(fields.get(b"version", 0)),
        int(fields.get(b"seq", 0)),
        fields.get(b"progress") or None,
    )


def _stored(items: list[tuple[bytes, dict[bytes, bytes]]]) -> list[StoredEntry]:
    return [
        (Cursor.parse(identifier.decode()), fields[b"k"].decode(), fields[b"m"])
        for identifier, fields in items
    ]


def _range(after: Cursor) -> tuple[str, str]:
    """Everything of the cursor's attempt after it, as XRANGE takes it."""
    return f"({after}", f"{after.attempt}"


def _options() -> dict[str, Any]:
    # No retries inside a command: the callers have their own, and a task never waits.
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }


def unavailable(error: Exception) -> RedisUnavailable:
    """`error` of the Redis client, in words that say what to do."""
    reason = str(error).strip() or type(error).__name__
    return RedisUnavailable(
        f"Redis does not answer ({reason}): check REDIS_URL and that the server runs."
    )


class Live:
    """Redis, sync: for workers and the command line. Thread-safe; make a new one after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: tuple[Any, Any] | None = None
        self._making = threading.Lock()

    @property
    def client(self) -> Any:
        """The client; one of a cluster asks its nodes as it is made, and is made once they answer.

        Raises:
            OUTAGES: None does.
        """
        return self._client_and_script()[0]

    def _client_and_script(self) -> tuple[Any, Any]:
        with self._making:
            if self._made is None:
                make = redis.RedisCluster if self.settings.redis_cluster else redis.Redis
                client: Any = make.from_url(self.settings.redis_url, **_options())
                self._made = client, client.register_script(PUBLISH_SCRIPT)
            return self._made

    def publish(self, publication: Publication) -> Outcome:
        """Run the publish script.

        Raises:
            RedisUnavailable: Redis did not answer; whether it ran is unknown.
        """
        try:
            _, script = self._client_and_script()
            answer = script(
                keys=script_keys(publication.job_id), args=_arguments(publication, self.settings)
            )
        except OUTAGES as error:
            raise unavailable(error) from error
        try:
            for command in _left_to_tell(publication, answer):
                self.client.execute_command(*command)
        except OUTAGES as error:
            _log_untold_feeds(publication, error)
        return _outcome(answer)

    def publish_view(self, row: JobRow) -> bool:
        """Tell viewers of a committed change; False where Redis is away (the rounds mend it)."""
        try:
            self.publish(publication_of(row))
        except RedisUnavailable as error:
            _log_untold(row, error)
            return False
        return True

    def publish_views(self, rows: Sequence[JobRow]) -> bool:
        """Tell viewers of many committed changes in one go; False: Redis is away, as above."""
        if self.settings.redis_cluster:  # where scripts cannot be sent together
            return all(self.publish_view(row) for row in rows)
        client, script = self._client_and_script()
        pipeline = client.pipeline(transaction=False)
        for row in rows:
            keys, arguments = script_keys(row.id), _arguments(publication_of(row), self.settings)
            script(keys=keys, args=arguments, client=pipeline)
        try:
            pipeline.execute(raise_on_error=False)
        except OUTAGES as error:
            for row in rows:
                _log_untold(row, error)
            return False
        return True

    def forget_all(self, rows: Sequence[JobRow]) -> None:
        """Drop all that Redis has of deleted jobs, and tell viewers; see `AsyncLive.forget_all`."""
        commands = [command for row in rows for command in _forgetting(row, self.settings)]
        try:
            if self.settings.redis_cluster:  # where keys of several slots cannot be sent together
                for command in commands:
                    self.client.execute_command(*command)
                return
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()
        except OUTAGES as error:
            _log.warning("%d jobs stay in Redis until they expire: %s", len(rows), error)

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made[0].close()


class AsyncLive:
    """Redis, async: for servers and keepers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        make = redis.asyncio.RedisCluster if settings.redis_cluster else redis.asyncio.Redis
        self.client: Any = make.from_url(settings.redis_url, **_options())
        self._script = self.client.register_script(PUBLISH_SCRIPT)

    async def publish(self, publication: Publication) -> Outcome:
        """Run the publish script; see `Live.publish`."""
        try:
            answer = await self._script(
                keys=script_keys(publication.job_id), args=_arguments(publication, self.settings)
            )
        except ASYNC_OUTAGES as error:
            raise unavailable(error) from error
        try:
            for command in _left_to_tell(publication, answer):
                await self.client.execute_command(*command)
        except ASYNC_OUTAGES as error:
            _log_untold_feeds(publication, error)
        return _outcome(answer)

    async def publish_view(self, row: JobRow) -> bool:
        """Tell viewers of a committed change; False where Redis is away (the rounds mend it)."""
        try:
            await self.publish(publication_of(row))
        except RedisUnavailable as error:
            _log_untold(row, error)
            return False
        return True

    async def read_head(self, job_id: str) -> Head | None:
        """What Redis knows newest of a job; None: nothing.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        try:
            return _head(await self.client.hgetall(head_key(job_id)))
        except ASYNC_OUTAGES as error:
            raise unavailable(error) from error

    async def read_heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        """What Redis knows newest of many jobs, in one go; of some perhaps nothing.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        try:
            pipeline = self.client.pipeline(transaction=False)
            for job_id in job_ids:
                pipeline.hgetall(head_key(job_id))
            heads = map(_head, await pipeline.execute())
        except ASYNC_OUTAGES as error:
            raise unavailable(error) from error
        found = zip(job_ids, heads, strict=True)
        return {job_id: head for job_id, head in found if head is not None}

    async def read_entries(self, job_id: str, after: Cursor, count: int) -> list[StoredEntry]:
        """Up to `count` entries of the cursor's attempt after it, ascending.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        try:
            first, last = _range(after)
            return _stored(await self.client.xrange(entries_key(job_id), first, last, count))
        except ASYNC_OUTAGES as error:
            raise unavailable(error) from error

    async def forget_all(self, rows: Sequence[JobRow]) -> None:
        """Drop all that Redis has of deleted jobs, and tell their viewers.

        What it cannot drop now expires by itself, and rounds tell whom this does not reach.

        Args:
            rows: `id`, `owner` and `parent_id` of each.
        """
        commands = [command for row in rows for command in _forgetting(row, self.settings)]
        try:
            if self.settings.redis_cluster:  # where keys of several slots cannot be sent together
                for command in commands:
                    await self.client.execute_command(*command)
                return
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            await pipeline.execute()
        except ASYNC_OUTAGES as error:
            _log.warning("%d jobs stay in Redis until they expire: %s", len(rows), error)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self.client.ping())
        except ASYNC_OUTAGES:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def _log_untold_feeds(publication: Publication, error: Exception) -> None:
    _log.info(
        "feeds are told of job %s a few seconds later: %s",
        publication.job_id,
        error,
        extra={"job_id": publication.job_id},
    )


def _log_untold(row: JobRow, error: Exception) -> None:
    _log.warning(
        "viewers of job %s were not told that it is %s: %s",
        row.id,
        row.status,
        error,
        extra={"job_id": row.id},
    )
