"""Who is asking, and what they may see and change; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

READ: Final = "read"
WRITE: Final = "write"
ADMIN: Final = "admin"
ALL_JOBS: Final = "all"
"""The feed of everybody's jobs."""
SCOPES: Final = frozenset({READ, WRITE, ADMIN})


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody with a right to something.

    Attributes:
        owner: Whose jobs these are; not empty, except where `jobs` says it all.
        scopes: `read` (see jobs), `write` (create and change them), `admin` (all of that, for
            everybody's jobs).
        jobs: Nothing but these jobs, whoever owns them; None: no such limit.
        feed: Nothing but this feed; None: no such limit.
        expires_at: When the credentials end, in seconds since the epoch; None: they do not.
    """

    owner: str
    scopes: frozenset[str] = frozenset({READ, WRITE})
    jobs: frozenset[str] | None = None
    feed: str | None = None
    expires_at: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the credentials are good for certain jobs or a feed only."""
        return self.jobs is not None or self.feed is not None

    @property
    def is_admin(self) -> bool:
        """Whether everybody's jobs are theirs to see and change."""
        return ADMIN in self.scopes and not self.is_limited

    def has_scope(self, scope: str) -> bool:
        """Whether the credentials carry `scope`; `admin` carries all."""
        return scope in self.scopes or self.is_admin

    def may_see(self, job_id: str, owner: str) -> bool:
        """Whether the job `job_id` of `owner` may be shown; nobody's jobs are the admins'."""
        if not self.has_scope(READ):
            return False
        return self._reaches(job_id, owner)

    def may_change(self, job_id: str, owner: str) -> bool:
        """Whether the job `job_id` of `owner` may be cancelled, run again or deleted."""
        return self.has_scope(WRITE) and self._reaches(job_id, owner)

    def may_follow(self, feed: str) -> bool:
        """Whether the feed may be followed; each of its jobs is looked at besides."""
        if not self.has_scope(READ):
            return False
        if self.feed is not None:
            return feed == self.feed
        return feed != ALL_JOBS or self.is_admin

    def may_see_in(self, feed: str, job_id: str, owner: str) -> bool:
        """Whether the job `job_id` of `owner` may be shown in a feed that it belongs to."""
        if not self.may_follow(feed):
            return False
        if self.jobs is not None:
            return job_id in self.jobs
        if feed == ALL_JOBS:
            return True
        return self.is_admin or (owner != "" and owner == self.owner)

    def _reaches(self, job_id: str, owner: str) -> bool:
        if self.feed is not None:
            return False
        if self.jobs is not None:
            return job_id in self.jobs
        return self.is_admin or (owner != "" and owner == self.owner)

    def limited_to(self, jobs: Iterable[str] | None = None, feed: str | None = None) -> Viewer:
        """The same viewer without `admin`, seeing nothing but `jobs` or `feed`.

        None adds no limit.
        """
        limit = self.jobs if jobs is None else frozenset(jobs)
        scopes = frozenset(scope for scope in (READ, WRITE) if self.has_scope(scope))
        return Viewer(self.owner, scopes, limit, feed or self.feed, self.expires_at)

    def to_json(self) -> dict[str, Any]:
        """The viewer as plain data, for a ticket's row."""
        return {
            "owner": self.owner,
            "scopes": sorted(self.scopes),
            "jobs": None if self.jobs is None else sorted(self.jobs),
            "feed": self.feed,
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Viewer:
        """The viewer that `to_json` wrote."""
        jobs = values["jobs"]
        return cls(
            owner=values["owner"],
            scopes=frozenset(values["scopes"]),
            jobs=None if jobs is None else frozenset(jobs),
            feed=values["feed"],
            expires_at=values["expires_at"],
        )
