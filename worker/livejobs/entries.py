"""A job's live state in Redis: its keys, the one script that writes it, and the cursor.

Nothing here talks to Redis: callers, sync or async, run `PUBLISH_SCRIPT` with the keys and
arguments that `script_call` builds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .errors import InvalidCursor
from .views import JobView, Status

FORMAT = 1
"""Number of the format of published messages; raised when they change beyond understanding."""

_MAX_NUMBER = 2**53


class Cursor(NamedTuple):
    """A place in a job's entries: after entry `n` of `attempt`."""

    attempt: int
    n: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read "<attempt>-<n>", also with the "-end" of an end message.

        Raises:
            InvalidCursor: The text is something else.
        """
        attempt, _, n = text.removesuffix("-end").partition("-")
        if not (_is_number(attempt) and _is_number(n)):
            raise InvalidCursor(text)
        return cls(int(attempt), int(n))


START = Cursor(0, 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16 and int(text) < _MAX_NUMBER


def channel(job_id: str) -> str:
    """The pub/sub channel; the braces keep all of a job in one cluster slot."""
    return f"lj:{{{job_id}}}"


_PREFIX, _SUFFIX = channel("\0").split("\0")


def job_of(name: str) -> str | None:
    """The job whose channel this is; None: it is another kind of channel."""
    if not name.startswith(_PREFIX):
        return None
    return name[len(_PREFIX) : len(name) - len(_SUFFIX)]


EVERYBODY = "lj:feed"
"""The channel on which the views and the progress of all jobs are published."""


def owner_channel(owner: str) -> str:
    """The channel for views and progress of an owner's jobs; in a cluster, in a slot of its own."""
    return f"lj:feed:{{{owner}}}"


def children_channel(parent_id: str) -> str:
    """The channel for views and progress of a job's children."""
    return f"lj:children:{{{parent_id}}}"


def feed_channels(owner: str, parent_id: str | None) -> list[str]:
    """The channels beside a job's own on which its views and its progress are published."""
    names = [EVERYBODY, owner_channel(owner)]
    return names if parent_id is None else [*names, children_channel(parent_id)]


def head_key(job_id: str) -> str:
    """Hash with the job's newest `attempt`, `n`, `version`, `seq` and `progress` (JSON)."""
    return f"lj:{{{job_id}}}:head"


def entries_key(job_id: str) -> str:
    """Stream of entries; ids are cursors, fields `k` (kind) and `m` (the wire message)."""
    return f"lj:{{{job_id}}}:entries"


class Published(NamedTuple):
    """One message from a job's channel.

    Attributes:
        attempt: Attempt it belongs to.
        n: Last entry up to and including this message.
        version: The view's version; 0 where the message holds no view.
        seq: Newest progress contained.
        kind: job, final, progress, log, output, or gone for a job that was deleted.
        payload: The wire message, JSON.
    """

    attempt: int
    n: int
    version: int
    seq: int
    kind: str
    payload: bytes


def parse_published(data: bytes) -> Published:
    """Take apart what `PUBLISH_SCRIPT` published.

    Raises:
        ValueError: It is no such message, or of a format this version does not know.
    """
    line, separator, payload = data.partition(b"\n")
    fields = line.split(b" ")
    if not separator or len(fields) != 6:
        raise ValueError(f"not a livejobs message: {line[:80]!r}")
    if int(fields[0]) != FORMAT:
        raise ValueError(f"message format {int(fields[0])} is not known here")
    return Published(
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        int(fields[4]),
        fields[5].decode("ascii"),
        payload,
    )


def parse_told(data: bytes) -> tuple[str, Published]:
    """Take apart what was published for feeds: the job's id, and the message as on its channel.

    Raises:
        ValueError: It is no such message, or of a format this version does not know.
    """
    head, _, rest = data.partition(b"\n")
    name, separator, payload = rest.partition(b"\n")
    published = parse_published(b"%b\n%b" % (head, payload))
    job_id = json.loads(name) if separator else None
    if not isinstance(job_id, str):
        raise ValueError(f"a message for feeds without a job id: {name[:80]!r}")
    return job_id, published


def deletion_messages(job_id: str, owner: str, parent_id: str | None) -> list[tuple[str, bytes]]:
    """Channels and messages that tell of a job's deletion."""
    head = b"%d 0 0 0 0 gone\n" % FORMAT
    payload = json.dumps({"owner": owner}).encode()
    told = b"%b%b\n%b" % (head, json.dumps(job_id).encode(), payload)
    feeds = [(name, told) for name in feed_channels(owner, parent_id)]
    return [(channel(job_id), head + payload), *feeds]


def deleted_owner(payload: bytes) -> str:
    """Whose a deleted job was, out of the message that tells of it.

    Raises:
        ValueError: It does not say.
    """
    owner = json.loads(payload).get("owner")
    if not isinstance(owner, str):
        raise ValueError("a deletion without an owner")
    return owner


@dataclass(frozen=True, slots=True)
class Entry:
    """A numbered batch of log lines or piece of output; it never changes.

    Attributes:
        n: Its number, from 1 in each attempt.
        kind: log or output.
        body: The wire message's fields after `job_id`, as JSON without the opening brace.
    """

    n: int
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """The newest progress.

    Attributes:
        seq: Grows within an attempt.
        json: The `Progress` object as JSON.
    """

    seq: int
    json: str


@dataclass(frozen=True, slots=True)
class ViewReport:
    """A job's view cut in two around its progress, so that the script can fill in a newer one.

    Attributes:
        version: The view's version.
        final: Whether the job is over.
        waits: Whether it is pending: no attempt of it runs.
        before: JSON up to and with ``"progress":``.
        progress: JSON of the row's progress, or ``null``.
        seq: The seq of that progress.
        after: The rest of the JSON.
    """

    version: int
    final: bool
    waits: bool
    before: str
    progress: str
    seq: int
    after: str


def view_report(view: JobView, seq: int) -> ViewReport:
    """`view` ready for `PUBLISH_SCRIPT`; `seq` is that of the progress it holds."""
    rest = view.model_dump_json(exclude={"progress"})
    return ViewReport(
        version=view.version,
        final=view.status.is_final,
        waits=view.status == Status.PENDING,
        before=rest[:-1] + ',"progress":',
        progress=view.progress.model_dump_json() if view.progress else "null",
        seq=seq,
        after="}",
    )


PUBLISH_SCRIPT = """
-- KEYS: head, entries, channel.  ARGV: format, job_id (JSON string), attempt, last n, expire s,
-- entries kept, SPUBLISH or PUBLISH, number of entries, (n, kind, body)*, seq, progress,
-- version ('' for no view), state (0 runs, 1 final, 2 waits), before, progress, seq, after,
-- (channel for feeds)*.
-- Answers {accepted (1) or refused (0), the head's attempt, entries that could not be kept,
-- (message for feeds)* that are left to the caller}.
local attempt, n, ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local head = redis.call('HMGET', KEYS[1], 'attempt', 'n', 'version', 'seq', 'progress', 'over')
local at, over = tonumber(head[1]) or 0, head[6]
-- Of an attempt that is over, nothing is taken any more but a newer view.
local new_version = tonumber(ARGV[9 + 3 * tonumber(ARGV[8]) + 2])
local newer = new_version and new_version > (tonumber(head[3]) or 0)
if attempt < at or (attempt == at and over == '1' and not newer) then return {0, at, 0} end
if attempt > at then over = '0' end
local version, seq, progress = tonumber(head[3]) or 0, tonumber(head[4]) or 0, head[5]
local known = tonumber(head[2]) or 0
if attempt > at then seq, progress, known = 0, false, 0 end
if n < known then n = known end

local function int(number) return string.format('%.0f', number) end
local function cursor(n) return int(attempt) .. '-' .. int(n) end
local told, feeds = {}, 9 + 3 * tonumber(ARGV[8]) + 8
local function publish(n, version, seq, kind, payload, state)
  local line = ARGV[1] .. ' ' .. int(attempt) .. ' ' .. int(n) .. ' '
    .. int(version) .. ' ' .. int(seq) .. ' ' .. kind .. '\\n'
  redis.call(ARGV[7], KEYS[3], line .. payload)
  if not state or #ARGV < feeds then return end
  local message = line .. ARGV[2] .. '\\n' .. payload
  if ARGV[7] == 'SPUBLISH' then
    told[#told + 1] = message
  else
    for i = feeds, #ARGV do redis.call('PUBLISH', ARGV[i], message) end
  end
end

local i, unkept = 9, 0
for _ = 1, tonumber(ARGV[8]) do
  local number, kind = tonumber(ARGV[i]), ARGV[i + 1]
  local id = cursor(number)
  local message = '{"type":"' .. kind .. '","id":"' .. id .. '","job_id":' .. ARGV[2] .. ','
    .. ARGV[i + 2]
  -- An entry sent again after a time-out is refused alone, by its id, and the rest goes on.
  local kept = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], id, 'k', kind, 'm', message)
  if type(kept) == 'table' and kept.err then
    if not string.find(kept.err, 'equal or smaller', 1, true) then unkept = unkept + 1 end
  else
    publish(number, 0, seq, kind, message)
  end
  if number > known then known = number end
  if known > n then n = known end
  i = i + 3
end

local new_seq = tonumber(ARGV[i])
if new_seq and new_seq > seq then
  seq, progress = new_seq, ARGV[i + 1]
  publish(n, 0, seq, 'progress', '{"type":"progress","id":"' .. cursor(n) .. '","job_id":'
    .. ARGV[2] .. ',"attempt":' .. int(attempt) .. ',"seq":' .. int(seq)
    .. ',"progress":' .. progress .. '}', true)
end
i = i + 2

if new_version and (new_version > version or attempt > at) then
  local shown, shown_seq = ARGV[i + 3], tonumber(ARGV[i + 4])
  if progress and seq > shown_seq and ARGV[i + 1] ~= '1' then
    shown, shown_seq = progress, seq
  end
  version, over = new_version, ARGV[i + 1] == '0' and '0' or '1'
  if shown_seq > seq then seq, progress = shown_seq, shown end
  publish(n, version, seq,
    ARGV[i + 1] == '1' and 'final' or 'job',
    '{"type":"job","id":"' .. cursor(n) .. '","job":' .. ARGV[i + 2] .. shown .. ARGV[i + 5]
    .. '}', true)
end

redis.call('HSET', KEYS[1], 'attempt', int(attempt), 'n', int(n), 'version', int(version),
  'seq', int(seq), 'progress', progress or '', 'over', over or '0')
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('EXPIRE', KEYS[2], ttl)
local answer = {1, attempt, unkept}
for i = 1, #told do answer[3 + i] = told[i] end
return answer
"""
"""Appends entries, keeps the newest progress, publishes what was accepted.

Views and progress are published for feeds too. Their channels may lie in other slots of a cluster,
which a script cannot reach: there the caller publishes them, made here all the same.

It refuses an attempt older than the job's newest, and one whose end has been told, so that a worker
that was given up can tell viewers nothing. Composing the wire messages here lets a view that the
server publishes carry the cursor and the progress of this very moment.
"""


def script_keys(job_id: str) -> list[str]:
    """The keys of `PUBLISH_SCRIPT`, in its order."""
    return [head_key(job_id), entries_key(job_id), channel(job_id)]


def script_arguments(
    job_id_json: str,
    attempt: int,
    last_n: int,
    *,
    ttl: int,
    keep: int,
    sharded: bool,
    entries: Sequence[Entry] = (),
    progress: ProgressReport | None = None,
    view: ViewReport | None = None,
    feeds: Sequence[str] = (),
) -> list[str | int]:
    """The arguments of `PUBLISH_SCRIPT`, in its order.

    Args:
        job_id_json: The job id as a JSON string, quotes included.
        attempt: Attempt that speaks.
        last_n: Number of the last entry known to the caller.
        ttl: Seconds until Redis forgets the job's live state.
        keep: Entries kept in the stream, about.
        sharded: Use SPUBLISH (a cluster's sharded pub/sub).
        entries: Entries to append, ascending.
        progress: Newest progress.
        view: The job's view after a change of status.
        feeds: Channels on which views and progress are published too.
    """
    arguments: list[str | int] = [
        FORMAT,
        job_id_json,
        attempt,
        last_n,
        ttl,
        keep,
        "SPUBLISH" if sharded else "PUBLISH",
        len(entries),
    ]
    for entry in entries:
        arguments += (entry.n, entry.kind, entry.body)
    arguments += (progress.seq, progress.json) if progress else ("", "")
    if view:
        state = "1" if view.final else "2" if view.waits else "0"
        arguments += (view.version, state, view.before, view.progress, view.seq, view.after)
    else:
        arguments += ("", "0", "", "", 0, "")
    if view or progress:
        arguments += feeds
    return arguments
