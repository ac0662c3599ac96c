"""Feeds: which jobs each of them is about, and what a client's text means for its viewer; pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from livejobs.entries import EVERYBODY, children_channel, owner_channel
from livejobs.views import storable_text

from ..viewer import ALL_JOBS, Viewer

MINE: Final = "mine"
TAG: Final = "tag:"
CHILDREN: Final = "children:"
MAX_FEED_CHARACTERS: Final = 512


class Scope(NamedTuple):
    """The jobs of a feed. Viewers with equal scopes are told the same.

    Attributes:
        feed: The feed as clients write it.
        owner: Whose jobs; None: everybody's.
        tag: Only those with this tag, key and value.
        parent_id: Only the children of this job.
    """

    feed: str
    owner: str | None = None
    tag: tuple[str, str] | None = None
    parent_id: str | None = None

    @property
    def channel(self) -> str:
        """The channel on which all of its jobs are published, others perhaps too."""
        if self.parent_id is not None:
            return children_channel(self.parent_id)
        return EVERYBODY if self.owner is None else owner_channel(self.owner)


class UnknownFeed(ValueError):
    """A text that names no feed."""


class ForbiddenFeed(ValueError):
    """A feed that the viewer may not follow."""


def scope_of(feed: str, viewer: Viewer) -> Scope:
    """What a feed is to a viewer: a tag's feed holds an admin everybody's jobs, others their own.

    Raises:
        UnknownFeed: There is no such feed.
        ForbiddenFeed: The viewer may not follow it.
    """
    is_text = 0 < len(feed) <= MAX_FEED_CHARACTERS and storable_text(feed) == feed
    scope = _read(feed, viewer) if is_text else None
    if scope is None:
        raise UnknownFeed(feed)
    if not viewer.may_follow(feed):
        raise ForbiddenFeed(feed)
    return scope


def _read(feed: str, viewer: Viewer) -> Scope | None:
    if feed == MINE:
        return Scope(feed, viewer.owner)
    if feed == ALL_JOBS:
        return Scope(feed)
    if feed.startswith(CHILDREN):
        parent_id = feed.removeprefix(CHILDREN)
        return Scope(feed, parent_id=parent_id) if 0 < len(parent_id) <= 255 else None
    key, separator, value = feed.removeprefix(TAG).partition("=")
    if not (feed.startswith(TAG) and key and separator):
        return None
    return Scope(feed, None if viewer.is_admin else viewer.owner, tag=(key, value))
