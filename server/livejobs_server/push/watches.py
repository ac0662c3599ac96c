"""What each viewer watches, kept with the viewer: most watch one job, and need no dict for it."""

from __future__ import annotations

from .exchange import Viewer
from .topic import Subscription


def find(viewer: Viewer, job_id: str) -> Subscription | None:
    """A viewer's watch on a job; None: it has none."""
    watches = viewer.watches
    if isinstance(watches, dict):
        found: Subscription | None = watches.get(job_id)
        return found
    if watches is not None and watches.topic.job_id == job_id:
        single: Subscription = watches
        return single
    return None


def watches_of(viewer: Viewer) -> list[Subscription]:
    """All its watches, in the order they began."""
    watches = viewer.watches
    if watches is None:
        return []
    return list(watches.values()) if isinstance(watches, dict) else [watches]


def count(viewer: Viewer) -> int:
    """How many it has."""
    watches = viewer.watches
    if watches is None:
        return 0
    return len(watches) if isinstance(watches, dict) else 1


def put(sub: Subscription) -> None:
    """Keep a watch with its viewer, in place of one on the same job."""
    viewer, job_id = sub.viewer, sub.topic.job_id
    watches = viewer.watches
    if isinstance(watches, dict):
        watches[job_id] = sub
    elif watches is None or watches.topic is sub.topic:
        viewer.watches = sub
    else:
        viewer.watches = {watches.topic.job_id: watches, job_id: sub}


def drop(sub: Subscription) -> None:
    """Forget a watch that its viewer has."""
    viewer = sub.viewer
    watches = viewer.watches
    if not isinstance(watches, dict):
        viewer.watches = None
        return
    del watches[sub.topic.job_id]
    if not watches:
        viewer.watches = None
