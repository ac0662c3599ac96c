"""What clients ask to watch, as they write it on any transport, read into what the hub takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from livejobs.entries import START, Cursor
from livejobs.errors import InvalidCursor
from livejobs.views import FeedName, JobId, Since

from ..viewer import Viewer
from .exchange import EntriesWanted
from .scope import ForbiddenFeed, Scope, UnknownFeed, scope_of
from .times import read_time
from .wire import Frame, problem_frame

MAX_SUBSCRIPTIONS: Final = 1000
"""Jobs and feeds that one connection may watch at a time."""

INVALID_CURSOR: Final = "invalid_cursor"
INVALID_REQUEST: Final = "invalid_request"
UNKNOWN_FEED: Final = "unknown_feed"
FORBIDDEN_FEED: Final = "forbidden_feed"
TOO_MANY_SUBSCRIPTIONS: Final = "too_many_subscriptions"

MARK: Final = "~"
"""Parts the time in a `since` from what a poll adds to it."""

Entries = Annotated[
    str,
    Field(
        pattern=r"^(all|none|tail:\d{1,6})$",
        description="Which entries are wanted: `all`, `none`, or for a newcomer the last N by "
        "`tail:N`; who resumes after a cursor gets all after it.",
    ),
]
After = Annotated[
    str,
    Field(
        max_length=64,
        description="Resume after this cursor, one that a message carried as its `id`.",
        examples=["1-57"],
    ),
]
Number = Annotated[int, Field(ge=0, le=2**53)]


class SubscriptionItem(BaseModel):
    """One thing to watch: a job or a feed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    job_id: JobId | None = None
    after: After | None = None
    entries: Entries = "all"
    version: Number = Field(
        0, description="Version of the view the client has; `job` is then sent only if newer."
    )
    seq: Number = Field(0, description="Seq of the progress the client has.")
    feed: FeedName | None = None
    since: Since | None = None

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if (self.job_id is None) == (self.feed is None):
            raise ValueError("give either job_id or feed")
        return self


@dataclass(frozen=True, slots=True)
class Wanted:
    """One job to watch, as the hub takes it.

    Attributes:
        job_id: The job.
        after: The last entry the client has; None: none.
        entries: Which entries it wants.
        version: Version of the view it has; 0: none.
        seq: Seq of the progress it has; 0: none.
        ref: A number for the answer.
    """

    job_id: str
    after: Cursor | None = None
    entries: EntriesWanted = "all"
    version: int = 0
    seq: int = 0
    ref: int | None = None


@dataclass(frozen=True, slots=True)
class WantedFeed:
    """One feed to follow, as the feeds take it.

    Attributes:
        feed: The feed.
        since: The client knows what changed until then, in microseconds since the epoch.
        wants_open: It begins with the jobs that are not over, whenever they changed.
        ref: A number for the answer.
    """

    feed: str
    since: int | None = None
    wants_open: bool = True
    ref: int | None = None


class Refusal(Exception):
    """A request that cannot be served, in words for the client.

    Attributes:
        code: A stable word for programs.
        message: The same for people.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)

    def frame(self, job_id: str = "", feed: str = "", ref: int | None = None) -> Frame:
        """The problem message that says so."""
        return problem_frame(self.code, self.message, job_id, feed, ref)


def cursor_of(text: str | None) -> Cursor | None:
    """The cursor in a request; None: the client has no entry yet.

    Raises:
        Refusal: It is none.
    """
    try:
        cursor = Cursor.parse(text) if text else START
    except InvalidCursor as error:
        raise Refusal(INVALID_CURSOR, str(error)) from None
    return None if cursor == START else cursor


def entries_of(text: str) -> EntriesWanted:
    """`all`, `none` or `tail:N`, already checked against its pattern."""
    if text.startswith("tail:"):
        return int(text.removeprefix("tail:"))
    return "none" if text == "none" else "all"


def since_of(text: str | None) -> int | None:
    """The `since` of a request, in microseconds since the epoch; None: there is none.

    Raises:
        Refusal: It is none that a server gave.
    """
    if not text:
        return None
    try:
        return read_time(text.partition(MARK)[0])
    except (ValueError, OverflowError):
        raise Refusal(INVALID_CURSOR, "since is none that this server gave.") from None


def wanted_of(item: SubscriptionItem) -> Wanted | WantedFeed:
    """What an item asks for.

    Raises:
        Refusal: It cannot be served.
    """
    if item.feed is not None:
        return WantedFeed(item.feed, since_of(item.since))
    assert item.job_id is not None
    return Wanted(
        item.job_id, cursor_of(item.after), entries_of(item.entries), item.version, item.seq
    )


def read_scope(feed: str, viewer: Viewer) -> Scope:
    """What a feed is to a viewer.

    Raises:
        Refusal: There is no such feed, or it is not the viewer's.
    """
    try:
        return scope_of(feed, viewer)
    except UnknownFeed:
        raise Refusal(
            UNKNOWN_FEED,
            "There is no such feed: use mine, all, tag:key=value or children:<job id>.",
        ) from None
    except ForbiddenFeed:
        raise forbidden_feed() from None


def forbidden_feed() -> Refusal:
    """The answer to a subscription to a feed that is not the viewer's."""
    return Refusal(FORBIDDEN_FEED, "These credentials do not allow this feed.")
